//! Every input that is kept goes through its target with every test run.

use std::path::{Path, PathBuf};

use weir_fuzz::TARGETS;

/// All seeds together, in bytes: they are examples and regressions, not a corpus.
const MAX_SEED_BYTES: u64 = 300 * 1024;

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder that was opened is read").path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_passes_its_target() {
    for target in TARGETS {
        let files = seeds(target.name);
        assert!(!files.is_empty(), "{} has no seeds", target.name);
        for file in files {
            let data = std::fs::read(&file).unwrap();
            println!("{} ({} bytes)", file.display(), data.len());
            (target.run)(&data);
        }
    }
}

#[test]
fn every_target_takes_nothing_and_a_little() {
    for target in TARGETS {
        (target.run)(&[]);
        for byte in 0..=u8::MAX {
            (target.run)(&[byte]);
            (target.run)(&[byte; 40]);
        }
    }
}

#[test]
fn every_folder_of_seeds_has_its_target_and_all_are_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut bytes = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(weir_fuzz::target(&name).is_some(), "{name} names no target");
        bytes += seeds(&name).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
    }
    assert!(bytes <= MAX_SEED_BYTES, "{bytes} bytes of seeds");
}
