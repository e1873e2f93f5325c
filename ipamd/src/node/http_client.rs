//! The HTTP client of the AWS SDK, shared by the clients of the metadata service and of EC2.
//!
//! A proxy is used for EC2 and STS only. The metadata service, the agents that hand out credentials and this machine
//! itself are reached directly whatever the settings are: a proxy would answer with its own identity.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use http::Uri;

use crate::config::Proxies;

/// The only TLS stack: rustls with ring.
const TLS: Provider = Provider::Rustls(CryptoMode::Ring);

/// A client that connects directly, and without TLS: it needs no certificates, and reading these takes tens of milliseconds.
#[must_use]
pub fn plain_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

/// A client that connects directly.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(TLS)
        .build_https()
}

/// A client that connects as `proxies` says.
#[must_use]
pub fn proxied_client(proxies: &Proxies) -> SharedHttpClient {
    let by = |url: &Option<String>, make: fn(String) -> Option<ProxyConfig>| {
        let config = make(url.clone()?)?;
        let bypass = proxies.bypass.as_deref().unwrap_or_default();
        Some(through(config.no_proxy(bypass)))
    };
    SharedHttpClient::new(Routed {
        direct: http_client(),
        http: by(&proxies.http, |url| ProxyConfig::http(url).ok()),
        https: by(&proxies.https, |url| ProxyConfig::https(url).ok()),
        metadata: proxies.metadata.as_deref().and_then(host),
    })
}

fn through(proxy: ProxyConfig) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(TLS);
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// Chooses the way by a request's target.
#[derive(Debug)]
struct Routed<T> {
    direct: T,
    http: Option<T>,
    https: Option<T>,
    /// The host of a metadata service that is not at its usual address.
    metadata: Option<String>,
}

impl<T> Routed<T> {
    fn way(&self, target: &str) -> &T {
        let Ok(uri) = target.parse::<Uri>() else {
            return &self.direct;
        };
        let host = uri.host().unwrap_or_default();
        if is_local(host) || self.metadata.as_deref() == Some(host) {
            return &self.direct;
        }
        let proxy = match uri.scheme_str() {
            Some("https") => &self.https,
            _ => &self.http,
        };
        proxy.as_ref().unwrap_or(&self.direct)
    }
}

impl HttpClient for Routed<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let of = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(Routed {
            direct: of(&self.direct),
            http: self.http.as_ref().map(of),
            https: self.https.as_ref().map(of),
            metadata: self.metadata.clone(),
        })
    }
}

impl HttpConnector for Routed<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.way(request.uri()).call(request)
    }
}

fn host(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.host().map(str::to_owned)
}

/// Whether `host` is this machine or an address that only this machine reaches.
fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => is_local_v4(address),
        Ok(IpAddr::V6(address)) => is_local_v6(address),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

const fn is_local_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_link_local()
}

/// fd00:ec2::/32 is where AWS has its link-local services.
const fn is_local_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    address.is_loopback() || address.is_unicast_link_local() || (a == 0xfd00 && b == 0xec2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_serves_ec2_and_never_the_metadata_service() {
        let ways = Routed {
            direct: "direct",
            http: Some("http"),
            https: Some("https"),
            metadata: Some("imds.example".to_owned()),
        };
        for (target, wanted) in [
            ("https://ec2.us-west-2.amazonaws.com/", "https"),
            ("https://sts.amazonaws.com/", "https"),
            ("http://ec2.example:8080/", "http"),
            ("http://169.254.169.254/latest/api/token", "direct"),
            ("http://169.254.170.23/v1/credentials", "direct"),
            ("http://[fd00:ec2::254]/latest/api/token", "direct"),
            ("http://[fd00:ec2::23]/v1/credentials", "direct"),
            ("http://127.0.0.1:1338/latest", "direct"),
            ("http://localhost:1338/latest", "direct"),
            ("http://imds.example/latest", "direct"),
            ("http://10.0.0.7/", "http"),
        ] {
            assert_eq!(ways.way(target), &wanted, "{target}");
        }
        let only_https = Routed { http: None, ..ways };
        assert_eq!(only_https.way("http://ec2.example/"), &"direct");
    }
}
