//! How addresses are read, and how text of strangers becomes a part of one.

use axum::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

use crate::names::{Host, ServerName};

/// Where an address points, `http` or `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub is_tls: bool,
    pub host: Host,
    pub port: u16,
    /// As the `Host` header names it.
    pub authority: String,
    /// With its query, if it has one.
    pub path: String,
}

impl Place {
    /// What a server's name cannot be is refused, such as a user's name before it.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let server = ServerName::parse(uri.authority()?.as_str())?;
        Some(Self {
            is_tls,
            host: server.host().clone(),
            port: server.port().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: server.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// All but what [RFC 3986 §2.3](https://www.rfc-editor.org/rfc/rfc3986#section-2.3) leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As one segment of a path, or one value of a query.
pub(crate) fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whom_to_connect_to_and_what_to_ask() {
        let place = |url: &str| {
            let Place { is_tls, port, authority, path, .. } = Place::parse(url)?;
            Some((is_tls, port, authority, path))
        };
        let of = |is_tls, port, authority: &str, path: &str| {
            Some((is_tls, port, authority.to_owned(), path.to_owned()))
        };
        assert_eq!(place("https://lab.example"), of(true, 443, "lab.example", "/"));
        assert_eq!(place("http://lab.example/a?b=c#d"), of(false, 80, "lab.example", "/a?b=c"));
        assert_eq!(place("https://[::1]:8448/x/"), of(true, 8448, "[::1]:8448", "/x/"));
        for wrong in
            ["lab.example", "ftp://lab.example", "https://", "https://u@lab.example", "https://a:b", ""]
        {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
