//! The plugin's one gRPC call to the daemon, written without a gRPC library. `docs/grpc-call.md` says what it promises and
//! which tests hold it to a real library.
//!
//! `client` owns the connection, the deadline and the retries; `call` owns frames and gRPC messages; `headers` decodes
//! header blocks. The bytes of a request are in `proto::wire`, which the daemon shares. Must not know any verb.
//!
//! May use `error` and `netns`.

mod call;
pub mod client;
mod headers;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every file and every test that the page names exists.
    #[test]
    fn the_page_about_the_call_names_what_exists() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let page = fs::read_to_string(root.join("docs/grpc-call.md")).unwrap();
        let names: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
        let (paths, tests): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.contains('/'));
        for path in &paths {
            assert!(root.join(path).exists(), "{path}");
        }
        let sources = [
            "cni-plugin/src/rpc/call/tests.rs",
            "ipamd/src/rpc/listener/fast_path/tests.rs",
        ];
        let sources = sources
            .map(|path| fs::read_to_string(root.join(path)).unwrap())
            .concat();
        let tests = tests.iter().filter(|name| name.contains('_'));
        for name in tests.clone() {
            assert!(sources.contains(&format!("fn {name}()")), "{name}");
        }
        assert!(paths.len() > 5 && tests.count() > 5);
    }
}
