//! What an operator sees of the authorisation service.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use super::{Asked, Refusal};
use crate::names::UserId;
use crate::openid::{HttpError, OpenIdError};
use crate::request::{Endpoint, VouchedEndpoint};

pub(super) struct Metrics {
    requests: IntCounterVec,
    lookups: IntCounterVec,
    lookup_seconds: Histogram,
    request_seconds: Histogram,
}

/// Upper bounds of what is counted together, in seconds: both wait for homeservers, up to their time limit.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What becomes of requests: they are granted, or [`Refusal::name`].
const OUTCOMES: [&str; 7] =
    ["granted", "malformed", "unauthorised", "forbidden", "unsupported", "busy", "failed"];
const LOOKUPS: [&str; 8] =
    ["vouched", "refused", "foreign", "unreachable", "not_allowed", "failed", "timed_out", "busy"];
const HERE: [Asked; 3] = [
    Asked::Here(Endpoint::SfuGet),
    Asked::Here(Endpoint::GetToken),
    Asked::Here(Endpoint::DelegateDelayedLeave),
];
const THROUGH: [Asked; 3] = [
    Asked::Through(VouchedEndpoint::GetToken),
    Asked::Through(VouchedEndpoint::DelegateDelayedLeave),
    Asked::Through(VouchedEndpoint::FederationGetToken),
];

fn name(endpoint: Asked) -> &'static str {
    match endpoint {
        Asked::Here(Endpoint::SfuGet) => "sfu_get",
        Asked::Here(Endpoint::GetToken) => "get_token",
        Asked::Here(Endpoint::DelegateDelayedLeave) => "delegate_delayed_leave",
        Asked::Through(VouchedEndpoint::GetToken) => "client_get_token",
        Asked::Through(VouchedEndpoint::DelegateDelayedLeave) => "client_delegate_delayed_leave",
        Asked::Through(VouchedEndpoint::FederationGetToken) => "federation_get_token",
    }
}

impl Metrics {
    /// With `passes_on` there are the endpoints that the homeserver passes on as well. All there is to count is there at 0
    /// from the start: a rate needs a first value.
    pub fn new(registry: &Registry, passes_on: bool) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "weir_token_requests_total",
                "Requests to the authorisation service, by endpoint and outcome. Endpoints beginning with client_ and \
                 federation_ are those that the homeserver passes on.",
            ),
            &["endpoint", "outcome"],
        )?;
        let lookups = IntCounterVec::new(
            Opts::new(
                "weir_openid_lookups_total",
                "Questions whose OpenID token it is, by what came of them: vouched (remembered ones as well), refused (by the \
                 homeserver), foreign (it vouched for another server's user), unreachable, not_allowed (no public address), \
                 failed, timed_out, busy (not asked).",
            ),
            &["outcome"],
        )?;
        let histogram = |name: &str, help: &str| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(lookups.clone()))?;
        for endpoint in HERE.into_iter().chain(THROUGH.into_iter().filter(|_| passes_on)) {
            for outcome in OUTCOMES {
                requests.with_label_values(&[name(endpoint), outcome]);
            }
        }
        for outcome in LOOKUPS {
            lookups.with_label_values(&[outcome]);
        }
        Ok(Self {
            requests,
            lookups,
            lookup_seconds: histogram(
                "weir_openid_lookup_seconds",
                "How long until a homeserver that was asked had said whose an OpenID token is, or not. Tokens that are \
                 remembered and homeservers that are not asked do not count.",
            )?,
            request_seconds: histogram(
                "weir_token_request_seconds",
                "How long a request to the authorisation service took that was granted, its OpenID look-up included.",
            )?,
        })
    }

    pub fn answered<T>(&self, endpoint: Asked, answer: &Result<T, Refusal>, took: Duration) {
        let outcome = answer.as_ref().map_or_else(|refusal| refusal.name(), |_| "granted");
        self.requests.with_label_values(&[name(endpoint), outcome]).inc();
        if answer.is_ok() {
            self.request_seconds.observe(took.as_secs_f64());
        }
    }

    /// `took` is nothing for a token that was remembered.
    pub fn looked_up(&self, took: Option<Duration>, user: &Result<UserId, OpenIdError>) {
        let outcome = match user {
            Ok(_) => "vouched",
            Err(OpenIdError::UnknownToken) => "refused",
            Err(OpenIdError::ForeignUser) => "foreign",
            Err(OpenIdError::Http(HttpError::AddressNotAllowed)) => "not_allowed",
            Err(OpenIdError::Http(_)) => "unreachable",
            Err(OpenIdError::Failed | OpenIdError::Malformed) => "failed",
            Err(OpenIdError::TimedOut) => "timed_out",
            Err(OpenIdError::Busy(_)) => "busy",
        };
        self.lookups.with_label_values(&[outcome]).inc();
        if let Some(took) = took.filter(|_| !matches!(outcome, "busy" | "not_allowed")) {
            self.lookup_seconds.observe(took.as_secs_f64());
        }
    }
}
