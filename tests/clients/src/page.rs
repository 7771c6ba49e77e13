//! Pages of the documentation, whose statements are run as they stand there.

/// A block of SQL, and the text between it and the one before.
pub struct Block {
    pub before: String,
    pub sql: String,
}

/// The blocks of `docs/<name>`, in their order.
pub fn blocks(name: &str) -> Vec<Block> {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut found, mut before, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sql") => block = Some(String::new()),
            (Some(_), "```") => {
                found.push(Block { before: std::mem::take(&mut before), sql: block.take().unwrap_or_default() });
            }
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, line) => before += &format!("{line}\n"),
        }
    }
    found
}
