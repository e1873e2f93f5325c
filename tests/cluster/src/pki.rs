//! Creates the cluster's certificate authority, certificates and kubeconfig files, with openssl.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::run;

/// A directory with `NAME.crt`, `NAME.key` and `NAME.kubeconfig` for every identity. The authority's name is `ca`.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// Creates the authority, and the key that signs service account tokens.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn create(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let pki = Self {
            directory: directory.to_owned(),
        };
        let mut authority = pki.request("ca", "/CN=hawser-cluster");
        authority
            .args(["-addext", "basicConstraints=critical,CA:TRUE"])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        run(&mut authority)?;
        let mut tokens = Command::new("openssl");
        run(tokens.args(["genrsa", "-out"]).arg(pki.path("sa.key")))?;
        Ok(pki)
    }

    /// Signs a certificate for `subject` with the file name `name`. `alternatives` has openssl's format,
    /// `IP:10.0.0.1,DNS:node`.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn sign(&self, name: &str, subject: &str, alternatives: &str) -> io::Result<()> {
        let mut request = self.request(name, subject);
        request
            .arg("-CA")
            .arg(self.path("ca.crt"))
            .arg("-CAkey")
            .arg(self.path("ca.key"))
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        if !alternatives.is_empty() {
            request.args(["-addext", &format!("subjectAltName={alternatives}")]);
        }
        run(&mut request).map(drop)
    }

    /// Writes a kubeconfig file for `name` and `server`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn kubeconfig(&self, name: &str, server: &str, file: &Path) -> io::Result<()> {
        let text = |suffix: &str| self.path(&format!("{name}.{suffix}")).display().to_string();
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "hawser", "cluster": {
                "server": server,
                "certificate-authority": self.path("ca.crt").display().to_string(),
            }}],
            "users": [{ "name": name, "user": {
                "client-certificate": text("crt"),
                "client-key": text("key"),
            }}],
            "contexts": [{ "name": "hawser", "context": { "cluster": "hawser", "user": name } }],
            "current-context": "hawser",
        });
        fs::write(file, config.to_string())
    }

    /// The path of a file in the directory.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn request(&self, name: &str, subject: &str) -> Command {
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject])
            .arg("-keyout")
            .arg(self.path(&format!("{name}.key")))
            .arg("-out")
            .arg(self.path(&format!("{name}.crt")));
        command
    }
}
