//! Templates of signed contents, such as `{timestamp}.{body}`.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::{canonical_json, twilio_form};
use crate::body::form::{PlusSign, is_field_name};
use crate::denial::Refusal;
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::signature::context::SignatureContext;
use crate::signature::request_parts::{BodyPart, TimestampSource, required_parameter};

/// One part of a signed content: a placeholder or fixed text of a content template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContentPart {
    /// The raw request body.
    Body,
    /// The SHA-256 digest of the body, in lower-case hexadecimal.
    BodySha256,
    /// The JSON body in canonical form, with sorted keys and without white space.
    CanonicalJson,
    /// The CRC-32 checksum of the body, in decimal.
    Crc32,
    /// The decoded value of a form field in the body. If the field is missing, this part is empty.
    Field(Box<str>),
    /// The sorted names and values of all form fields in the body. If the body is not a form, this part is empty.
    Form,
    /// The value of a header, as received. If the header is missing, this part is empty.
    Header(HeaderName),
    /// The event id, as received.
    Id,
    /// Fixed text between the placeholders of the template.
    Literal(Box<str>),
    /// The value at a JSON pointer in the body. A string is decoded, and any other value is used as received. If the
    /// value is missing, this part is empty.
    Member(Pointer),
    /// The method of the request.
    Method,
    /// The raw path of the request, without the query.
    Path,
    /// The decoded value of a query parameter. The query must contain the parameter.
    Query(Box<str>),
    /// The secret of the provider.
    Secret,
    /// The timestamp, as received.
    Timestamp,
    /// The URL that the provider called: `public_url`, the raw path and the raw query, without the query parameter
    /// that contains the signature.
    Url,
}

impl ContentPart {
    /// Reports whether this part can have any length. The end of such a part in the signed content is unknown. Returns
    /// false for a part with a known format, such as a timestamp or a SHA-256 digest. Also returns false for the
    /// method, because no HTTP method is a prefix of another method. `time` is the location of the timestamp.
    fn has_any_length(&self, time: Option<&TimestampSource>) -> bool {
        match (self, time) {
            (Self::BodySha256 | Self::Literal(_) | Self::Method | Self::Secret | Self::Timestamp, _) => false,
            (Self::Field(name), Some(TimestampSource::Form(time))) => name != time,
            (Self::Header(name), Some(TimestampSource::Header(time))) => name != time,
            (Self::Member(pointer), Some(TimestampSource::Body(time))) => pointer != time,
            (Self::Query(name), Some(TimestampSource::Query(time))) => name != time,
            _ => true,
        }
    }
}

/// Formats the part as written in a content template.
impl fmt::Display for ContentPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => write!(f, "{{body}}"),
            Self::BodySha256 => write!(f, "{{body_sha256}}"),
            Self::CanonicalJson => write!(f, "{{canonical_json}}"),
            Self::Crc32 => write!(f, "{{crc32}}"),
            Self::Field(name) => write!(f, "{{form:{name}}}"),
            Self::Form => write!(f, "{{form}}"),
            Self::Header(name) => write!(f, "{{header:{name}}}"),
            Self::Id => write!(f, "{{id}}"),
            Self::Literal(text) => write!(f, "{text}"),
            Self::Member(pointer) => write!(f, "{{body:{}}}", pointer.as_str()),
            Self::Method => write!(f, "{{method}}"),
            Self::Path => write!(f, "{{path}}"),
            Self::Query(name) => write!(f, "{{query:{name}}}"),
            Self::Secret => write!(f, "{{secret}}"),
            Self::Timestamp => write!(f, "{{timestamp}}"),
            Self::Url => write!(f, "{{url}}"),
        }
    }
}

/// A parsed content template, which describes the signed content, such as `{timestamp}.{body}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContentTemplate {
    parts: Vec<ContentPart>,
    text: Box<str>,
}

/// The reason why the text of a content template is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContentTemplateError {
    /// The text has a brace without a matching brace.
    Brace,
    /// The text has a placeholder with this unknown name.
    Unknown(String),
}

impl fmt::Display for ContentTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brace => write!(f, "has a brace without a matching brace"),
            Self::Unknown(name) => write!(
                f,
                "contains the unknown placeholder `{{{name}}}`. Placeholders are {{body}} {{timestamp}} {{id}} {{method}} \
                 {{url}} {{path}} {{query:name}} {{header:name}} {{body:/pointer}} {{form:name}} {{body_sha256}} \
                 {{canonical_json}} {{crc32}} {{form}} {{secret}}"
            ),
        }
    }
}

impl ContentTemplate {
    /// Parses a content template.
    ///
    /// # Errors
    /// Returns a [`ContentTemplateError`] if the text has an unknown placeholder or a brace without a matching brace.
    pub fn parse(text: &str) -> Result<Self, ContentTemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or(ContentTemplateError::Brace)?;
            if !before.is_empty() {
                parts.push(ContentPart::Literal(before.into()));
            }
            parts.push(placeholder(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(ContentPart::Literal(rest.into()));
        }
        if parts.iter().any(|part| matches!(part, ContentPart::Literal(text) if text.contains('}'))) {
            return Err(ContentTemplateError::Brace);
        }
        Ok(Self { parts, text: text.into() })
    }

    /// Returns the parts of the signed content in order.
    pub fn parts(&self) -> &[ContentPart] {
        &self.parts
    }

    /// Returns the text from which the template was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the names of the headers in the signed content.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            ContentPart::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Reports whether the signed content contains the whole body or a digest of it.
    pub fn covers_body(&self) -> bool {
        let whole = |part: &ContentPart| {
            matches!(
                part,
                ContentPart::Body | ContentPart::BodySha256 | ContentPart::CanonicalJson | ContentPart::Form
            )
        };
        self.parts.iter().any(whole)
    }

    /// Reports whether the signed content contains the JSON body as text, raw or in canonical form.
    pub fn contains_json(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, ContentPart::Body | ContentPart::CanonicalJson))
    }

    /// Reports whether the template contains the value at this JSON pointer in the body.
    pub fn signs_member(&self, pointer: &Pointer) -> bool {
        self.parts.iter().any(|part| matches!(part, ContentPart::Member(member) if member == pointer))
    }

    /// Reports whether the template contains the form field `name`.
    pub fn signs_field(&self, name: &str) -> bool {
        self.parts.iter().any(|part| matches!(part, ContentPart::Field(field) if **field == *name))
    }

    /// Reports whether the template contains the query parameter `name`, or the whole URL.
    pub fn signs_parameter(&self, name: &str) -> bool {
        let signs = |part: &ContentPart| match part {
            ContentPart::Query(parameter) => **parameter == *name,
            ContentPart::Url => true,
            _ => false,
        };
        self.parts.iter().any(signs)
    }

    /// Returns the names of the query parameters in the template.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            ContentPart::Query(name) => Some(&**name),
            _ => None,
        })
    }

    /// Returns how many JSON values and form fields of the body the template contains.
    pub fn body_parts_count(&self) -> usize {
        self.body_parts().count()
    }

    /// Returns the JSON pointers and the names of form fields in the template, in order.
    pub(in crate::signature) fn body_parts(&self) -> impl Iterator<Item = BodyPart<'_>> {
        self.parts.iter().filter_map(|part| match part {
            ContentPart::Field(name) => Some(BodyPart::Field(name)),
            ContentPart::Member(pointer) => Some(BodyPart::Member(pointer)),
            _ => None,
        })
    }

    /// Writes the signed content of a request to `sink`, part by part.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if a query parameter of the template is missing or ambiguous.
    pub(in crate::signature) fn write(
        &self,
        values: &ContentValues<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        let (head, body) = (&values.context.head, values.body);
        let mut body_parts = values.body_parts.iter();
        for part in &self.parts {
            match part {
                ContentPart::Literal(text) => sink(text.as_bytes()),
                ContentPart::Body => sink(body),
                ContentPart::BodySha256 => sink(HEXLOWER.encode(&Sha256::digest(body)).as_bytes()),
                ContentPart::CanonicalJson | ContentPart::Form => sink(values.normalized_body.as_bytes()),
                ContentPart::Crc32 => sink(crc32fast::hash(body).to_string().as_bytes()),
                ContentPart::Timestamp => sink(values.timestamp),
                ContentPart::Id => sink(values.id.map_or(b"", HeaderValue::as_bytes)),
                ContentPart::Field(_) | ContentPart::Member(_) => {
                    sink(body_parts.next().map_or(b"", |text| text.as_bytes()));
                }
                ContentPart::Path => sink(head.raw_path().as_bytes()),
                ContentPart::Query(name) => {
                    sink(required_parameter(head, name, PlusSign::Ambiguous)?.as_bytes());
                }
                ContentPart::Method => sink(head.method.as_bytes()),
                ContentPart::Secret => sink(values.secret),
                ContentPart::Url => {
                    sink(values.context.public_url.as_bytes());
                    sink(values.target.as_bytes());
                }
                ContentPart::Header(name) => sink(head.headers.get(name).map_or(b"", HeaderValue::as_bytes)),
            }
        }
        Ok(())
    }

    /// Reports whether the raw body directly follows the URL, the path or a query parameter in the signed content. The
    /// boundary between the two parts is then ambiguous.
    pub(in crate::signature) fn joins_url_and_body(&self) -> bool {
        let joins = |pair: &[ContentPart]| {
            matches!(pair, [ContentPart::Path | ContentPart::Query(_) | ContentPart::Url, ContentPart::Body])
        };
        self.parts.windows(2).any(joins)
    }

    /// Returns the first two neighboring parts whose boundary in the signed content cannot be found. A sender could
    /// move bytes from one of these parts to the other, and the signature would stay valid. A body after the path or
    /// the URL is not reported: Callgate accepts only a body that begins like JSON there, so the boundary is clear.
    /// Returns `None` if all boundaries are clear. `time` is the location of the timestamp.
    pub fn unclear_boundary(&self, time: Option<&TimestampSource>) -> Option<(&ContentPart, &ContentPart)> {
        self.parts.windows(2).find_map(|pair| match pair {
            [ContentPart::Path | ContentPart::Url, ContentPart::Body] => None,
            [first, second] => {
                (first.has_any_length(time) && second.has_any_length(time)).then_some((first, second))
            }
            _ => None,
        })
    }

    /// Reports whether the template contains the placeholder `{id}`, the event id.
    pub fn uses_id(&self) -> bool {
        self.parts.contains(&ContentPart::Id)
    }

    /// Reports whether the template contains the placeholder `{timestamp}`.
    pub fn uses_timestamp(&self) -> bool {
        self.parts.contains(&ContentPart::Timestamp)
    }

    /// Returns the first byte of the fixed text that directly follows the event id in the template. Returns `None` if
    /// no fixed text follows the event id.
    pub(in crate::signature) fn byte_after_id(&self) -> Option<u8> {
        let at = self.parts.iter().position(|part| *part == ContentPart::Id)?;
        match self.parts.get(at + 1)? {
            ContentPart::Literal(text) => text.bytes().next(),
            _ => None,
        }
    }
}

/// The values of one request that replace the placeholders of a content template.
pub(in crate::signature) struct ContentValues<'v> {
    pub(in crate::signature) context: &'v SignatureContext<'v>,
    pub(in crate::signature) body: &'v [u8],
    pub(in crate::signature) timestamp: &'v [u8],
    pub(in crate::signature) id: Option<&'v HeaderValue>,
    pub(in crate::signature) secret: &'v [u8],
    /// The JSON values and form fields of the body, in the order of their placeholders in the template.
    pub(in crate::signature) body_parts: &'v [Cow<'v, str>],
    /// The path and query of the request, without the query parameter that contains the signature.
    pub(in crate::signature) target: &'v str,
    /// The result of [`normalized_body`]: the canonical JSON, the sorted form fields, or an empty text.
    pub(in crate::signature) normalized_body: &'v str,
}

/// Returns the text for the placeholder `{canonical_json}` or `{form}` of the template: the canonical JSON of the body,
/// or its sorted form fields. Returns an empty text if the template has neither placeholder. The text does not depend
/// on the key, so the caller computes it once for all keys.
pub(in crate::signature) fn normalized_body(
    content: &ContentTemplate,
    head: &RequestHead<'_>,
    body: &[u8],
) -> Result<String, Refusal> {
    if content.parts.contains(&ContentPart::CanonicalJson) {
        canonical_json::canonicalize(body)
    } else if content.parts.contains(&ContentPart::Form) {
        twilio_form::signed_text(head, body)
    } else {
        Ok(String::new())
    }
}

fn placeholder(name: &str) -> Result<ContentPart, ContentTemplateError> {
    let unknown = || ContentTemplateError::Unknown(name.to_owned());
    match name {
        "body" => Ok(ContentPart::Body),
        "body_sha256" => Ok(ContentPart::BodySha256),
        "canonical_json" => Ok(ContentPart::CanonicalJson),
        "crc32" => Ok(ContentPart::Crc32),
        "form" => Ok(ContentPart::Form),
        "id" => Ok(ContentPart::Id),
        "method" => Ok(ContentPart::Method),
        "path" => Ok(ContentPart::Path),
        "secret" => Ok(ContentPart::Secret),
        "timestamp" => Ok(ContentPart::Timestamp),
        "url" => Ok(ContentPart::Url),
        _ if name.starts_with("body:") => {
            let pointer = name.strip_prefix("body:").and_then(Pointer::parse);
            pointer.map(ContentPart::Member).ok_or_else(unknown)
        }
        _ if name.starts_with("form:") => {
            let field = name.strip_prefix("form:").filter(|name| is_field_name(name));
            field.map(|name| ContentPart::Field(name.into())).ok_or_else(unknown)
        }
        _ if name.starts_with("query:") => {
            let parameter = name.strip_prefix("query:").filter(|name| is_field_name(name));
            parameter.map(|name| ContentPart::Query(name.into())).ok_or_else(unknown)
        }
        _ => {
            let header = name.strip_prefix("header:").ok_or_else(unknown)?;
            // Callgate does not forward headers with an underscore to the agent, so the signed content must not
            // contain them.
            let name = HeaderName::from_bytes(header.as_bytes()).ok().filter(|_| !header.contains('_'));
            name.map(ContentPart::Header).ok_or_else(unknown)
        }
    }
}

#[cfg(test)]
#[path = "content_template_tests.rs"]
mod tests;
