//! A cluster whose WAL is on a disk so small that it can be filled.
//!
//! The disk is a tmpfs, which only root can mount. Where that is not possible [`SmallDisk::mount`] says why.

use crate::{Database, run, server, variable, wait};
use std::io::Write;
use std::path::Path;
use std::process::Command;

const MEGABYTES: usize = 200;

pub struct SmallDisk {
    home: String,
    mount: String,
    pub database: Database,
}

impl SmallDisk {
    /// A new cluster, its WAL on the small disk, and a database with the extension.
    pub fn mount(name: &str) -> Result<Self, String> {
        let home = format!("{}-c", variable("PGHOST"));
        let mount = format!("{}-w", variable("PGHOST"));
        // What an earlier run may have left.
        server::cluster_in(&home, &["destroy"], None);
        let _ = Command::new("umount").arg(&mount).output();
        std::fs::create_dir_all(&mount).map_err(|error| format!("{mount}: {error}"))?;
        let options = format!("size={MEGABYTES}m,mode=0777");
        command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &mount])?;
        server::cluster_in(&home, &["start"], None);
        server::cluster_in(&home, &["stop"], None);
        // -a keeps the owner, who is not root.
        let moved =
            format!("cp -a {home}/data/pg_wal {mount}/wal && rm -rf {home}/data/pg_wal && ln -s {mount}/wal {home}/data/pg_wal");
        command("sh", &["-c", &moved])?;
        server::cluster_in(&home, &["start"], None);
        let database = Database::create_in(&home, name);
        run(&mut database.connect(), "CREATE TABLE public.ballast (text text)");
        Ok(Self { home, mount, database })
    }

    /// Fills the disk, and goes on writing until the server finds out. It then goes down, and cannot come up again.
    #[track_caller]
    pub fn fill(&self) {
        let mut client = self.database.connect();
        let ballast = format!("{}/ballast", self.mount);
        let mut file = std::fs::File::create(&ballast).unwrap_or_else(|error| panic!("{ballast}: {error}"));
        let block = vec![0_u8; 1 << 20];
        while file.write_all(&block).is_ok() {}
        drop(file);
        let write = "INSERT INTO public.ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 10000) n";
        wait::until(wait::LONG, "the server has no room for its WAL", || client.batch_execute(write).is_err());
        wait::until(wait::LONG, "the server has gone down, or refuses connections", || self.database.try_connect().is_err());
    }

    /// Makes room again, and starts the server if it has not helped itself. That is all that is done.
    #[track_caller]
    pub fn make_room(&self) {
        let ballast = format!("{}/ballast", self.mount);
        std::fs::remove_file(&ballast).unwrap_or_else(|error| panic!("{ballast}: {error}"));
        server::cluster_in(&self.home, &["start"], None);
        let mut client = self.database.reconnect();
        run(&mut client, "TRUNCATE public.ballast");
        run(&mut client, "CHECKPOINT");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            server::cluster_in(&self.home, &["destroy"], None);
            let _ = command("umount", &[&self.mount]);
            if !Path::new(&self.mount).join("wal").exists() {
                let _ = std::fs::remove_dir(&self.mount);
            }
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
