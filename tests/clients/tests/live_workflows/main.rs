//! The workflows of the pack live_events, one file each, six cases each (see `six.rs`).

mod money;
mod show;
mod site;
mod six;

/// A file for each workflow, and a test for each file.
macro_rules! workflows {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+

        const ALL: &[&six::Workflow] = &[$(&$name::WORKFLOW),+];

        $(
            #[test]
            fn $name() {
                six::six(&$name::WORKFLOW);
            }
        )+
    };
}

workflows!(
    w01, w02, w03, w04, w05, w06, w07, w08, w09, w10, w11, w12, w13, w14, w15, w16, w17, w18, w19, w20, w21, w22, w23, w24, w25,
    w26, w27, w28, w29, w30, w31, w32, w33, w34, w35, w36, w37, w38, w39, w40, w41, w42, w43, w44, w45, w46, w47, w48
);

/// The pack's page names exactly the workflows that are tested here. With USHER_WRITE_TABLE=1 it is written.
#[test]
fn the_page_shows_what_is_tested() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/packs/live_events.md");
    let page = std::fs::read_to_string(&path).expect("the pack's page");
    let (begin, end) = ("<!-- workflows -->\n", "<!-- end of workflows -->\n");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (shown, after) = rest.split_once(end).expect("where it ends");
    let table = six::table(ALL);
    if std::env::var_os("USHER_WRITE_TABLE").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).expect("the page can be written");
        return;
    }
    assert_eq!(shown, table, "USHER_WRITE_TABLE=1 cargo test -p usher-clients --test live_workflows writes it");
}
