//! Proxies between this node and the AWS APIs, by the variables that most programs read.

use super::{Reader, Strings};

/// How EC2 and STS are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`: for `http://` endpoints.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: for `https://` endpoints, as EC2's are.
    pub https: Option<String>,
    /// `NO_PROXY`: names, domains and networks that are reached directly, separated by commas.
    pub bypass: Option<String>,
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`: never reached by a proxy.
    pub metadata: Option<String>,
}

impl Proxies {
    /// Those of `source`, for a command that reads no other setting. One that cannot be used is taken for unset.
    #[must_use]
    pub fn read(source: &dyn Strings) -> Self {
        let mut reader = Reader {
            source,
            mistakes: Vec::new(),
            notices: Vec::new(),
        };
        reader.proxies()
    }
}

impl Reader<'_> {
    pub(super) fn proxies(&mut self) -> Proxies {
        Proxies {
            http: self.proxy("HTTP_PROXY"),
            https: self.proxy("HTTPS_PROXY"),
            bypass: self.either("NO_PROXY"),
            metadata: self.text("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        }
    }

    /// In capitals, or else in small letters: programs differ, and nodes have either or both.
    fn either(&self, name: &str) -> Option<String> {
        self.text(name)
            .or_else(|| self.text(&name.to_ascii_lowercase()))
    }

    fn proxy(&mut self, name: &str) -> Option<String> {
        let text = self.either(name)?;
        // As Go reads it: without a scheme it is plain HTTP.
        let url = match text.contains("://") {
            true => text.clone(),
            false => format!("http://{text}"),
        };
        let usable = url.parse::<http::Uri>().is_ok_and(|uri| {
            uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        if usable {
            return Some(url);
        }
        // The text may hold a password.
        self.wrong(name, "(not shown)", "a URL: http://host:port");
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Proxies, String> {
        Config::read(&pairs.iter().copied().collect::<BTreeMap<_, _>>())
            .map(|config| config.cloud.proxies)
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn both_spellings_are_read() {
        let wanted = Proxies {
            http: Some("http://a:1".to_owned()),
            https: Some("http://b:2".to_owned()),
            bypass: Some(".internal".to_owned()),
            metadata: None,
        };
        for pairs in [
            [
                ("HTTP_PROXY", "http://a:1"),
                ("HTTPS_PROXY", "b:2"),
                ("NO_PROXY", ".internal"),
            ],
            [
                ("http_proxy", "a:1"),
                ("https_proxy", "http://b:2"),
                ("no_proxy", ".internal"),
            ],
        ] {
            assert_eq!(read(&pairs), Ok(wanted.clone()));
        }
        assert_eq!(read(&[("HTTPS_PROXY", "")]), Ok(Proxies::default()));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_a_mistake_without_its_password() {
        let told = read(&[("HTTPS_PROXY", "socks5://me:secret@proxy")]).unwrap_err();
        assert!(
            told.contains("HTTPS_PROXY") && !told.contains("secret"),
            "{told}"
        );
    }
}
