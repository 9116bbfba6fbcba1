//! The configuration: a TOML file, overridden by the environment, checked before anything starts.

mod check;
mod explain;
mod load;
mod matrix;
mod values;

pub use load::{ConfigError, load, overlooked};
pub use matrix::{user_homeserver, user_id};
pub use values::{Config, Limits, Log, LogFormat, Matrix, Media, Membership, User};

/// Every key with its meaning and default. A test holds it against [`Config::default`].
pub const DEFAULT: &str = include_str!("default.toml");

/// The printed default with its commented keys put in force.
fn uncommented() -> String {
    let keys = DEFAULT.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
    keys.collect::<Vec<_>>().join("\n")
}

/// Every key there is, with the value that is printed for it. A test holds it against [`Config`].
fn every_key() -> toml::Table {
    uncommented().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::load::parse;
    use super::*;

    fn config(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        parse("weir.toml", text, environment)
    }

    #[test]
    fn the_printed_default_is_the_default() {
        let with_keys = format!("{DEFAULT}\n[keys]\nkey = \"a secret of at least 32 characters\"");
        let mut parsed = config(&with_keys, &[]).unwrap();
        parsed.keys = BTreeMap::new();
        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn every_printed_key_is_known() {
        // They are of ways that exclude each other, so only their names count.
        toml::from_str::<Config>(&uncommented()).unwrap();
    }

    #[test]
    fn every_key_is_printed() {
        let table = toml::Table::try_from(Config::example()).unwrap();
        for (section, keys) in &table {
            if let Some(keys) = keys.as_table() {
                assert_printed(section, keys);
            }
        }
    }

    fn assert_printed(section: &str, keys: &toml::Table) {
        assert!(uncommented().contains(&format!("[{section}]")), "[{section}]");
        for (key, value) in keys.iter().filter(|_| section != "keys") {
            match value.as_table() {
                Some(keys) => assert_printed(&format!("{section}.{key}"), keys),
                None => assert!(uncommented().contains(&format!("\n{key} = ")), "{section}.{key}"),
            }
        }
    }

    const KEYS: &str = "[keys]\nkey = \"a secret of at least 32 characters\"\n";

    /// A configuration with Matrix and some more keys of that section.
    fn matrix(more: &str) -> String {
        let url = if more.starts_with("url") { "" } else { "url = \"wss://x\"\n" };
        format!("[matrix]\nserver_name = \"example.org\"\n{url}{more}")
    }

    /// One whose focus is a user.
    fn user(more: &str) -> String {
        matrix(&format!("[matrix.user]\nid = \"weir\"\npassword_file = \"x\"\n{more}"))
    }

    #[test]
    fn a_user_is_of_the_own_homeserver_unless_it_says_another() {
        let parse = |text: &str| config(text, &[]).unwrap().matrix;
        let own =
            parse(&matrix("homeserver_url = \"http://own\"\nuser.id = \"weir\"\nuser.password_file = \"x\""));
        assert_eq!(user_id(&own).unwrap().as_str(), "@weir:example.org");
        assert_eq!(user_homeserver(&own), Some("http://own"));
        let other = |more: &str| {
            let keys =
                "homeserver_url = \"http://own\"\nuser.id = \"@w:else.example\"\nuser.password_file = \"x\"";
            config(&matrix(&format!("{keys}\n{more}")), &[])
        };
        assert!(other("").is_err(), "the own homeserver does not know it");
        let other = other("user.homeserver_url = \"http://else\"").unwrap().matrix;
        assert_eq!(user_homeserver(&other), Some("http://else"));
    }

    #[test]
    fn with_matrix_no_key_is_needed_and_joining_alone_creates_nothing() {
        let with = config(&matrix(""), &[]).unwrap();
        assert!(with.matrix.is_on() && with.keys.is_empty() && !with.auto_create());
        assert!(config(&format!("{}[room]\nauto_create = true", matrix("")), &[]).unwrap().auto_create());
        assert!(config(KEYS, &[]).unwrap().auto_create());
    }

    #[test]
    fn the_environment_reaches_keys_of_sections_in_sections() {
        let networks = ("WEIR__MATRIX__OPENID__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
        let config = config(&matrix(""), &[networks]).unwrap();
        assert_eq!(config.matrix.openid.allow_networks, ["127.0.0.0/8".parse::<ipnet::IpNet>().unwrap()]);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("WEIR__MEDIA__UDP_PORT", "9000"),
            ("WEIR__MEDIA__BIND", "[\"192.0.2.1\"]"),
            ("WEIR__HTTP__BIND", "127.0.0.1:1"),
            ("PATH", "/bin"),
        ];
        let config = config(&format!("{KEYS}[media]\nudp_port = 5\n"), &environment).unwrap();
        assert_eq!(config.media.udp_port, 9000);
        assert_eq!(config.media.bind, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(config.http.bind, "127.0.0.1:1".parse().unwrap());
    }

    #[test]
    fn an_api_key_from_the_environment_keeps_its_name_and_is_text() {
        let secret = "12345678901234567890123456789012";
        let config = config("", &[("WEIR__KEYS__APIabc", secret)]).unwrap();
        assert_eq!(config.keys, [("APIabc".to_owned(), secret.to_owned())].into());
    }

    #[test]
    fn a_variable_with_too_few_underscores_is_noticed() {
        for (name, right) in [
            ("WEIR_MEDIA_UDP_PORT", Some("WEIR__MEDIA__UDP_PORT")),
            ("WEIR_MEDIA__UDP_PORT", Some("WEIR__MEDIA__UDP_PORT")),
            ("WEIR_KEY_FILE", Some("WEIR__KEY_FILE")),
            ("WEIR_ROOM_AUTO_CREATE", Some("WEIR__ROOM__AUTO_CREATE")),
            ("WEIR_MATRIX_HOMESERVER_URL", Some("WEIR__MATRIX__HOMESERVER_URL")),
            ("WEIR_MATRIX_USER_PASSWORD_FILE", Some("WEIR__MATRIX__USER__PASSWORD_FILE")),
            ("WEIR_MATRIX__OPENID_ALLOW_NETWORKS", Some("WEIR__MATRIX__OPENID__ALLOW_NETWORKS")),
            ("WEIR__MEDIA__UDP_PORT", None),
            ("WEIR__KEY_FILE", None),
            ("WEIR_PORT", None),
            ("WEIR_SERVICE_HOST", None),
            ("WEIR_SECRET", None),
            ("WEIR_ACCESS_TOKEN", None),
            ("PATH", None),
        ] {
            let expected: Vec<_> = right.iter().map(|right| (name.to_owned(), (*right).to_owned())).collect();
            assert_eq!(overlooked([name.to_owned()]), expected, "{name}");
        }
    }

    #[test]
    fn mistakes_are_told_by_key_value_and_remedy() {
        const AS: &str = "homeserver_url = \"http://x\"\nappservice.registration = \"x\"\n";
        let cases = [
            (format!("{KEYS}[media]\nudp_prt = 5"), "media.udp_prt", "udp_port"),
            (format!("{KEYS}[media]\nudp_port = 70000"), "media.udp_port", "70000"),
            (format!("{KEYS}[media]\nudp_port = \"x\""), "media.udp_port", "\"x\""),
            (format!("{KEYS}[media]\nbind = [\"example.org\"]"), "media.bind", "example.org"),
            (format!("{KEYS}[media]\nudp_port = 0"), "media.udp_port", "from 1 to 65535"),
            (format!("{KEYS}[log]\nformat = \"xml\""), "log.format", "json"),
            ("[keys]\nkey = \"short\"".to_owned(), "keys.key", "openssl rand"),
            (String::new(), "keys", "openssl rand"),
            (format!("{KEYS}[media]\nshards = 200"), "media.shards", "26"),
            ("= 5".to_owned(), "weir.toml, line 1 is not TOML", "mend it"),
            (format!("{KEYS}[log]\nlevel = \"loud\""), "log.level", "use off, error"),
            (format!("{KEYS}[media]\nbind = \"192.0.2.1\""), "media.bind", "square brackets"),
            (format!("{KEYS}[media]\nbind = [\"192.0.2.1\", \"x\"]"), "media.bind[1] = \"x\"", "192.0.2.1"),
            (format!("{KEYS}[media]\nbind = [\"0.0.0.0\"]"), "media.bind", "leave media.bind empty"),
            (
                format!("{KEYS}[media]\nannounce = [\"::\"]"),
                "media.announce",
                "name those that clients reach",
            ),
            (format!("{KEYS}[media]\nbind = [\"::1\", \"::1\"]"), "media.bind", "once"),
            (format!("{KEYS}[http]\nbind = \"localhost:80\""), "http.bind", "names are not looked up"),
            (format!("{KEYS}[http]\nbind = \"0.0.0.0:7881\""), "media.tcp_port = 7881", "another port"),
            (format!("{KEYS}[admin]\nbind = \"127.0.0.1:7880\""), "admin.bind", "http.bind has that port"),
            (format!("{KEYS}[media]\nreceive_buffer_bytes = 0"), "media.receive_buffer_bytes", "from 65536"),
            (format!("{KEYS}[room]\nauto_create = \"no\""), "room.auto_create", "true or false"),
            (
                format!("{KEYS}key_file = \"/etc/weir/this-path-is-long-enough/keys.toml\""),
                "keys.key_file",
                "above the first [section]",
            ),
            (
                format!("{KEYS}[http]\ntcp_port = 5"),
                "http.tcp_port",
                "tcp_port is a key of [media]; the keys",
            ),
            (
                format!("{KEYS}[log]\nhomeserver_url = \"http://x\""),
                "log.homeserver_url",
                "[matrix] and [matrix.user]",
            ),
            (format!("{KEYS}[log]\nkey_file = \"x\""), "log.key_file", "above the first [section]"),
            (format!("timeout_seconds = 5\n{KEYS}"), "timeout_seconds", "a key of [matrix.openid]"),
            (format!("{KEYS}[medai]\nudp_port = 5"), "medai", "perhaps you mean media"),
            (format!("media = 5\n{KEYS}"), "media = 5", "square brackets on a line of its own"),
            (matrix("url = \"\""), "matrix.url", "wss://rtc.example.org/livekit/sfu"),
            (matrix("url = \"https://x\""), "matrix.url = https://x", "wss://"),
            (matrix("url = \"wss://x y\""), "matrix.url", "wss://"),
            (matrix("prefix = \"livekit\""), "matrix.prefix = livekit", "/livekit/jwt"),
            (matrix("creators = [\"https://x\"]"), "matrix.creators[0] = https://x", "example.org"),
            (matrix("publishers = [\"a\", \"*\"]"), "matrix.publishers", "\"*\" alone"),
            (matrix("homeserver_url = \"127.0.0.1:8008\""), "matrix.homeserver_url", "http://127.0.0.1:8008"),
            (matrix("token_seconds = 5"), "matrix.token_seconds = 5", "from 60"),
            (matrix("membership = \"members\""), "matrix.membership", "when-visible"),
            (matrix("membership = \"require\""), "matrix.membership = require", "weir appservice generate"),
            (matrix("appservice.registration = \"x\""), "matrix.homeserver_url", "http://127.0.0.1:8008"),
            (matrix("appservice.tokens = true"), "matrix.appservice.tokens = true", "generate --tokens"),
            (
                matrix(&format!("{AS}appservice.tokens = true\nleaves.delegation = false")),
                "matrix.leaves.delegation = false",
                "matrix.appservice.tokens = false",
            ),
            (matrix("appservice.tokens = 1"), "matrix.appservice.tokens", "true or false"),
            (matrix("user.id = \"a:b\""), "matrix.user.id = a:b", "@weir:example.org"),
            (matrix("user.max_rooms = 5"), "matrix.user.id", "name the user"),
            (matrix("user.id = \"weir\""), "matrix.user.password_file", "/etc/weir/password"),
            (
                matrix("[matrix.user]\nid = \"w\"\npassword_file = \"x\"\naccess_token_file = \"y\""),
                "matrix.user.access_token_file = y",
                "leave out one",
            ),
            (user(""), "matrix.user.homeserver_url", "https://matrix.example.org"),
            (user("homeserver_url = \"x\""), "matrix.user.homeserver_url = x", "http://127.0.0.1:8008"),
            (user("homeserver_url = \"http://x\"\nmax_rooms = 0"), "matrix.user.max_rooms = 0", "from 1"),
            (
                user("homeserver_url = \"http://x\"\ninvited_by = [\"@\"]"),
                "matrix.user.invited_by[0]",
                "example.org",
            ),
            (
                matrix("homeserver_url = \"http://x\"\nappservice.registration = \"x\"\nuser.id = \"weir\""),
                "matrix.user.id = weir",
                "leave out [matrix.user]",
            ),
            (
                matrix("openid.timeout_seconds = 0"),
                "matrix.openid.timeout_seconds = 0: it is out of range",
                "from 1 to 60",
            ),
            (
                format!("{KEYS}[limits]\ntracks_per_participant = 0"),
                "limits.tracks_per_participant = 0",
                "from 1 to 512",
            ),
            (
                format!("{KEYS}[limits]\nmetadata_bytes = 1048577"),
                "limits.metadata_bytes",
                "from 0 to 1048576",
            ),
            (
                format!("{KEYS}[limits]\nattributes_bytes = 4194304"),
                "limits.attributes_bytes",
                "from 0 to 1048576",
            ),
            (matrix("openid.lookups_per_second = 0"), "matrix.openid.lookups_per_second", "from 1"),
            (
                matrix("openid.allow_networks = [\"10.0.0.0\"]"),
                "matrix.openid.allow_networks[0]",
                "10.0.0.0/8",
            ),
            (matrix("openid.timeout = 5"), "matrix.openid.timeout", "timeout_seconds"),
            (matrix("leaves.delegation = 1"), "matrix.leaves.delegation", "true or false"),
            (format!("{KEYS}[matrix]\nserver_name = \"@a:b\""), "matrix.server_name = @a:b", "example.org"),
            (format!("{KEYS}[matrix]\nurl = \"wss://x\""), "matrix.server_name", "name the homeserver"),
            (
                format!("{KEYS}[matrix]\nmembership = \"require\""),
                "matrix.server_name",
                "name the homeserver",
            ),
            (format!("{KEYS}[matrix.user]\nid = \"weir\""), "matrix.server_name", "name the homeserver"),
            (format!("{KEYS}\"\" = \"a secret of at least 32 characters\""), "keys", "give it one"),
        ];
        for (text, key, remedy) in cases {
            let error = config(&text, &[]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(remedy), "{text:?}: {error}");
        }
        let error = config(KEYS, &[("WEIR__MEDIA__SHARDS", "many")]).unwrap_err().to_string();
        assert!(error.starts_with("media.shards (set by WEIR__MEDIA__SHARDS) = \"many\""), "{error}");
    }

    #[test]
    fn secrets_are_not_repeated_in_errors() {
        for text in [
            "[keys]\nkey = \"hunter2\"",
            "[key]\nname = \"hunter2\"",
            "keys = \"hunter2\"",
            "secret = \"hunter2\"",
            "[keys]\nkey = \"hunter2\nx = 5",
            "[[ice_servers]]\nurls = \"stun:x\"\ncredential = \"hunter2\"",
            "[[ice_servers]]\nurl = \"stun:x\"\ncredential = \"hunter2\"",
            "[[ice_servers]]\nurls = [\"stun:x\"]\ncredentials = \"hunter2\"",
            "ice_servers = [\"hunter2\"]\nx = 5",
        ] {
            let error = config(text, &[]).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", Config::example()).contains("a secret"));
    }
}
