//! Names to addresses and services.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

/// Where a name server is asked.
const DNS_PORT: u16 = 53;
/// Addresses of one name that are tried, and services of one server. A stranger's zone may list thousands.
const MAX_ANSWERS: usize = 8;
/// Until a name server is asked again, which happens once. Two such waits fit into the time of a look-up.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers that are kept.
const CACHED_ANSWERS: u64 = 4_096;
/// Questions that wait for an answer, over one connection to a name server. Beyond, they fail at once, so it is more than
/// there are look-ups at a time.
const MAX_QUESTIONS: usize = 2_048;

/// Asks the name servers of the system, or one of its own.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
}

/// A host that offers a service, from an SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub target: String,
    pub port: u16,
}

/// The system's resolver configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the system's name servers are not known: {0}")]
pub struct DnsError(String);

impl Dns {
    /// With the name servers and the hosts file of the system. Where none are configured, one on this machine is asked, as
    /// the C library does: a focus that only ever asks the homeserver beside it needs none.
    pub fn system() -> Result<Self, DnsError> {
        let mut builder = match TokioResolver::builder_tokio() {
            Ok(builder) => builder,
            Err(error) => {
                tracing::warn!(%error, "no name servers are configured; asking 127.0.0.1");
                return Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
            }
        };
        set_limits(builder.options_mut());
        Ok(Self { resolver: builder.build().map_err(|error| DnsError(error.to_string()))? })
    }

    /// With one name server at an address of its own.
    pub fn at(server: SocketAddr) -> Result<Self, DnsError> {
        let mut name_server = NameServerConfig::udp(server.ip());
        for connection in &mut name_server.connections {
            connection.port = server.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set_limits(builder.options_mut());
        Ok(Self { resolver: builder.build().map_err(|error| DnsError(error.to_string()))? })
    }

    /// Empty if there are none, or nobody answers.
    pub async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        match self.resolver.lookup_ip(absolute(name)).await {
            Ok(found) => found.iter().take(MAX_ANSWERS).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Best first. Among equals the weightier one, rather than by lot: look-ups are few, and should go the same way.
    pub async fn services(&self, service: &str, name: &str) -> Vec<Service> {
        let asked = format!("{service}.{}", absolute(name));
        let Ok(found) = self.resolver.lookup(asked, RecordType::SRV).await else { return Vec::new() };
        let mut services: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => {
                    Some((srv.priority, std::cmp::Reverse(srv.weight), srv.target.to_ascii(), srv.port))
                }
                _ => None,
            })
            .take(MAX_ANSWERS)
            .collect();
        services.sort();
        // A target of "." says that there is no such service (RFC 2782).
        services.retain(|(_, _, target, port)| target != "." && *port != 0);
        services.into_iter().map(|(_, _, target, port)| Service { target, port }).collect()
    }
}

/// Names are whole: the system's search list would make "example.org" a host of our own domain.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn set_limits(options: &mut ResolverOpts) {
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 1;
    options.cache_size = CACHED_ANSWERS;
    options.max_active_requests = MAX_QUESTIONS;
}
