//! Writes EC2's XML. There is no parser, because EC2 receives none.

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const PROLOGUE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

/// Elements under construction.
#[derive(Debug, Default)]
pub struct Xml(String);

impl Xml {
    /// `<name>text</name>`.
    pub fn leaf(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.tree(name, |x| escape(&mut x.0, &value.to_string()))
    }

    /// The same, or nothing.
    pub fn maybe(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(v) = value {
            self.leaf(name, v);
        }
        self
    }

    /// `<name>…</name>`.
    pub fn tree(&mut self, name: &str, inside: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push_str(&format!("<{name}>"));
        inside(self);
        self.0.push_str(&format!("</{name}>"));
        self
    }

    /// `<name><item>…</item>…</name>`, also if it is empty, like EC2.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.tree(name, |x| {
            for i in items {
                x.tree("item", |x| each(x, i));
            }
        })
    }

    /// A list whose items are plain text.
    pub fn texts<T: ToString>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.list(name, items, |x, i| escape(&mut x.0, &i.to_string()))
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

/// A response: `root` in EC2's namespace, the request id, then `body`.
pub fn document(root: &str, request: &str, body: &Xml) -> String {
    format!(
        "{PROLOGUE}\n<{root} xmlns=\"{NAMESPACE}\"><requestId>{request}</requestId>{}</{root}>",
        body.0
    )
}

/// An error. Its request id is `RequestID`, without a namespace.
pub fn error(code: &str, message: &str, request: &str) -> String {
    let mut x = Xml::default();
    x.tree("Response", |x| {
        x.tree("Errors", |x| {
            x.tree("Error", |x| {
                x.leaf("Code", code).leaf("Message", message);
            });
        })
        .leaf("RequestID", request);
    });
    format!("{PROLOGUE}\n{}", x.0)
}
