//! An incomplete answer is an error. The SDK's XML reader treats the end of the body as the end of the document: for a
//! list that was truncated in transit, it would return the first half as if it were complete.

use aws_sdk_ec2::config::{
    ConfigBag, Intercept, RuntimeComponents,
    interceptors::AfterDeserializationInterceptorContextRef,
};
use aws_smithy_runtime_api::box_error::BoxError;

/// Turns a success with a truncated document into a failure.
#[derive(Debug)]
pub struct WholeAnswers;

#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short")]
struct CutShort;

impl Intercept for WholeAnswers {
    fn name(&self) -> &'static str {
        "WholeAnswers"
    }

    // Earlier, the body has not been read yet.
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        if response.status().is_success() && !is_whole(body) {
            return Err(CutShort.into());
        }
        Ok(())
    }
}

/// Whether the root element is closed at the end.
fn is_whole(document: &[u8]) -> bool {
    let mut rest = document.trim_ascii();
    if rest.starts_with(b"<?") {
        let end = rest.windows(2).position(|two| two == b"?>");
        rest = end.map_or(&[][..], |at| rest[at + 2..].trim_ascii_start());
    }
    let Some(root) = rest.strip_prefix(b"<") else {
        return false;
    };
    let end = root
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'));
    let name = &root[..end.unwrap_or_default()];
    let closed = rest.strip_suffix(b">").map(<[u8]>::trim_ascii_end);
    let closed = closed.and_then(|rest| rest.strip_suffix(name));
    !name.is_empty() && closed.is_some_and(|rest| rest.ends_with(b"</"))
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_document_is_whole_at_its_end_only() {
        let whole =
            "<?xml version=\"1.0\"?>\n<AReply xmlns=\"u\"><set><item>1</item></set></AReply>\n";
        assert!(is_whole(whole.as_bytes()));
        assert!(is_whole(b"<A></A >"));
        for length in 0..whole.trim_end().len() {
            assert!(
                !is_whole(&whole.as_bytes()[..length]),
                "{}",
                &whole[..length]
            );
        }
        for odd in ["", "ok", "<", "<>", "</>", "<?xml", "<A/>", "<A><B></B>"] {
            assert!(!is_whole(odd.as_bytes()), "{odd}");
        }
    }
}
