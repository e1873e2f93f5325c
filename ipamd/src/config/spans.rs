//! Settings for the export of spans: OpenTelemetry's own variables. The SDK reads most of them.
//!
//! The SDK silently treats an invalid text as unset, so the variables that it reads itself (headers, sampler) are also
//! checked here. If tracing is off, none of them is checked.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Uri, uri::Scheme};

use super::Reader;

/// Where spans are sent, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanSettings {
    /// `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: Protocol,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` unchanged, or `OTEL_EXPORTER_OTLP_ENDPOINT` with the signal's path.
    pub endpoint: String,
    /// `OTEL_SERVICE_NAME`.
    pub service: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT`: the time limit of one request.
    pub timeout: Duration,
    /// `OTEL_BSP_EXPORT_TIMEOUT`: the time limit of one batch, including retries.
    pub patience: Duration,
    /// `OTEL_BSP_SCHEDULE_DELAY`: the time from one batch to the next.
    pub delay: Duration,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`: the maximum number of queued spans; more are dropped.
    pub queue: usize,
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub batch: usize,
}

/// The protocol for spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The specification's default.
    Http,
    Grpc,
}

impl Protocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http/protobuf",
            Self::Grpc => "grpc",
        }
    }
}

/// The name of a variable for spans, and the one for all signals.
type Names = [&'static str; 2];

const ENDPOINT: Names = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOL: Names = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const TIMEOUT: Names = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
const HEADERS: Names = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const COMPRESSION: Names = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];

impl Reader<'_> {
    /// `None` if no endpoint is set.
    pub(super) fn span_settings(&mut self) -> Option<SpanSettings> {
        if self.disabled() {
            return None;
        }
        let exports = self.exporter();
        let (name, endpoint) = self.first(ENDPOINT).filter(|_| exports)?;
        let protocol = self.protocol();
        self.headers();
        self.sampler();
        self.compression();
        let [own, all] = TIMEOUT;
        let timeout = self.milliseconds(all, 10_000);
        Some(SpanSettings {
            protocol,
            endpoint: self.endpoint(name, &endpoint, protocol),
            service: self.text("OTEL_SERVICE_NAME"),
            timeout: Duration::from_millis(self.milliseconds(own, timeout)),
            patience: Duration::from_millis(self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000)),
            delay: Duration::from_millis(self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000)),
            queue: self.spans("OTEL_BSP_MAX_QUEUE_SIZE", 2_048),
            batch: self.spans("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
        })
    }

    /// The variable for spans, or the one for all signals, with its text.
    fn first(&self, names: Names) -> Option<(&'static str, String)> {
        let mut set = names.into_iter();
        set.find_map(|name| Some((name, self.text(name)?)))
    }

    /// By the specification, every text except "true" means false.
    fn disabled(&mut self) -> bool {
        const NAME: &str = "OTEL_SDK_DISABLED";
        let text = self.text(NAME).unwrap_or_default().to_ascii_lowercase();
        if !matches!(text.as_str(), "" | "true" | "false") {
            self.ignore(NAME, &text, "true or false");
        }
        text == "true"
    }

    fn exporter(&mut self) -> bool {
        const NAME: &str = "OTEL_TRACES_EXPORTER";
        match self.text(NAME).as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(other) => {
                let other = other.to_owned();
                self.wrong(NAME, other, "otlp or none");
                false
            }
        }
    }

    fn protocol(&mut self) -> Protocol {
        let Some((name, text)) = self.first(PROTOCOL) else {
            return Protocol::Http;
        };
        match text.as_str() {
            "grpc" => return Protocol::Grpc,
            "http/protobuf" => {}
            _ => self.wrong(name, text, "http/protobuf or grpc"),
        }
        Protocol::Http
    }

    /// The signal's path is only added to the common endpoint, and only if the protocol has paths.
    fn endpoint(&mut self, name: &str, text: &str, protocol: Protocol) -> String {
        let uri = text.parse::<Uri>().ok();
        let plain = uri.is_some_and(|uri| uri.scheme() == Some(&Scheme::HTTP));
        if !plain {
            let wanted =
                "http://host:port (no TLS: let a collector on the node carry spans further)";
            self.wrong(name, text, wanted);
        }
        if protocol == Protocol::Http && name == ENDPOINT[1] {
            format!("{}/v1/traces", text.trim_end_matches('/'))
        } else {
            text.to_owned()
        }
    }

    /// They may contain a secret, so the text is not repeated in errors.
    fn headers(&mut self) {
        let usable = |item: &str| {
            item.split_once('=').is_some_and(|(name, value)| {
                HeaderName::from_str(name.trim()).is_ok()
                    && HeaderValue::from_str(value.trim()).is_ok()
                    && !value.trim().is_empty()
            })
        };
        for name in HEADERS {
            let text = self.text(name).unwrap_or_default();
            if !text.split_terminator(',').all(usable) {
                self.wrong(name, "…", "name=value pairs, separated by commas");
            }
        }
    }

    fn sampler(&mut self) {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
        let text = self.text(NAME).unwrap_or_default();
        match text.strip_prefix("parentbased_").unwrap_or(&text) {
            "always_on" | "always_off" => {}
            "" if text.is_empty() => {}
            "traceidratio" => {
                let ratio: f64 = self.or(RATIO, "a number from 0 to 1", 1.0);
                if !(0.0..=1.0).contains(&ratio) {
                    self.wrong(RATIO, ratio, "a number from 0 to 1");
                }
            }
            _ => self.wrong(
                NAME,
                text,
                "[parentbased_]always_on, [parentbased_]always_off or [parentbased_]traceidratio",
            ),
        }
    }

    /// Every collector accepts uncompressed data.
    fn compression(&mut self) {
        if let Some((name, text)) = self.first(COMPRESSION).filter(|(_, text)| text != "none") {
            self.ignore(name, text, "none");
        }
    }

    fn milliseconds(&mut self, name: &str, default: u64) -> u64 {
        self.positive(name, "milliseconds, 1 or more", u64::MAX, default)
    }

    /// The memory for the queue is allocated at start.
    fn spans(&mut self, name: &str, default: u32) -> usize {
        let spans = self.positive(name, "a number of spans from 1 to 65536", 65_536, default);
        usize::try_from(spans).unwrap_or(usize::MAX)
    }

    fn positive<T>(&mut self, name: &str, wanted: &str, most: T, default: T) -> T
    where
        T: FromStr + PartialOrd + From<u8> + Display + Copy,
    {
        let number = self.or(name, wanted, default);
        if !(T::from(1)..=most).contains(&number) {
            self.wrong(name, number, wanted);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Mistakes};

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
        Config::read(&pairs.iter().copied().collect::<BTreeMap<_, _>>())
    }

    fn spans(pairs: &[(&'static str, &'static str)]) -> Option<SpanSettings> {
        read(pairs).unwrap().spans
    }

    #[test]
    fn spans_are_exported_where_an_endpoint_is_named_and_nothing_forbids_it() {
        assert_eq!(spans(&[]), None);
        assert_eq!(spans(&[("OTEL_TRACES_EXPORTER", "otlp")]), None);
        assert!(spans(&[ON]).is_some());
        assert!(spans(&[ON, ("OTEL_SDK_DISABLED", "false")]).is_some());
        for off in [
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(spans(&[ON, off]), None, "{off:?}");
        }
    }

    #[test]
    fn the_variables_of_traces_go_before_those_of_all_signals() {
        let common = spans(&[ON]).unwrap();
        assert_eq!(common.endpoint, "http://127.0.0.1:4318/v1/traces");
        assert_eq!(
            (common.protocol, common.timeout),
            (Protocol::Http, Duration::from_secs(10))
        );
        let own = spans(&[
            ON,
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://collector:4317",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
        ])
        .unwrap();
        assert_eq!(own.endpoint, "http://collector:4317");
        assert_eq!(
            (own.protocol, own.timeout),
            (Protocol::Grpc, Duration::from_millis(700))
        );
    }

    #[test]
    fn each_text_that_cannot_be_used_is_named() {
        for (name, text) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "65537"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "all"),
        ] {
            let Mistakes(lines) = read(&[ON, (name, text)]).unwrap_err();
            let named = format!("{name}={text}: expected ");
            assert!(
                matches!(&*lines, [line] if line.starts_with(&named)),
                "{lines:?}"
            );
        }
        let ratio = [
            ON,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ];
        let Mistakes(lines) = read(&ratio).unwrap_err();
        assert!(lines[0].starts_with("OTEL_TRACES_SAMPLER_ARG=1.5"));
    }

    #[test]
    fn a_header_that_cannot_be_used_is_named_without_its_text() {
        let good = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,b=c");
        assert!(read(&[ON, good]).is_ok());
        let bad = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: secret");
        let Mistakes(lines) = read(&[ON, bad]).unwrap_err();
        assert!(lines[0].starts_with("OTEL_EXPORTER_OTLP_HEADERS="));
        assert!(!lines[0].contains("secret"), "{lines:?}");
    }

    #[test]
    fn settings_without_effect_are_ignored_and_reported() {
        let config = read(&[
            ON,
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_SDK_DISABLED", "yes"),
        ])
        .unwrap();
        assert!(config.spans.is_some());
        assert_eq!(config.notices.len(), 2, "{:?}", config.notices);
    }
}
