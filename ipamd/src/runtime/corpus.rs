//! The corpus of a fuzz target, which the tests of its code replay.

/// Every input in the corpus of `target`, in a fixed order.
pub fn inputs(target: &str) -> Vec<Vec<u8>> {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
    let files = std::fs::read_dir(format!("{all}/{target}")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Passes every input in the corpus of `target` to `read`, which panics on failure.
pub fn replay(target: &str, read: impl Fn(&[u8])) {
    for input in inputs(target) {
        read(&input);
    }
}
