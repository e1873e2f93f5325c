//! Log lines: JSON on standard error, one event per line. Initialised once, by `main`.
//!
//! Every field is plain: a text without Rust's quotes, a number with its unit in the name or in the text, an enum by its
//! name. A field whose name ends in `_json` holds a JSON value and is written as that value, under the name without the
//! ending. The lab reads every line that a daemon wrote and rejects Rust's debug syntax.

use std::{error::Error, fmt};

use proto::error_chain::chain;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Installs the subscriber. Our own crates log at `level`, libraries only warnings.
pub fn start(level: tracing::Level) {
    // kube-runtime warns at every try; `crate::kube` logs once that the API server is unavailable.
    let ours = ["ipamd", "datapath", "planner"]
        .map(|name| format!("{name}={level}"))
        .join(",")
        + ",kube_runtime=error";
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse_lossy(ours);
    let subscriber = tracing_subscriber::fmt()
        .event_format(Lines)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call can only come from a test; the first one stays in effect.
    drop(subscriber.try_init());
}

/// One JSON object for each event, with its fields beside `timestamp`, `level`, `message` and `target`.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let about = event.metadata();
        write!(
            out,
            "{{\"timestamp\":{},\"level\":\"{}\"",
            Value::from(timestamp),
            about.level()
        )?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        for (name, value) in &fields.0 {
            write!(out, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(out, ",\"target\":{}}}", Value::from(about.target()))
    }
}

/// An event's fields as JSON values.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name().strip_suffix("_json") {
            Some(name) => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                self.0.insert(name.to_owned(), value);
            }
            None => self.put(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, chain(value));
    }

    /// Also what `%value` gives, and the message.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_are_plain_json() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                path = %std::path::Path::new("/run/a b").display(),
                said = "a \"word\"\n",
                wait = ?Duration::from_millis(1500),
                count = 3,
                on = true,
                settings_json = r#"{"MAX_ENI":"3"}"#,
                "starting"
            );
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        for (name, value) in [
            ("level", Value::from("INFO")),
            ("message", Value::from("starting")),
            ("path", Value::from("/run/a b")),
            ("said", Value::from("a \"word\"\n")),
            ("wait", Value::from("1.5s")),
            ("count", Value::from(3)),
            ("on", Value::from(true)),
            ("settings", serde_json::json!({ "MAX_ENI": "3" })),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
    }
}
