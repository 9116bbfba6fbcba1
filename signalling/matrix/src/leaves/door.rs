//! What the authorisation service hands over.

use futures_util::future::BoxFuture;

use super::{Delegate, DelegateError, Delegations, Refusal, Until};
use crate::service;

impl service::Leaves for Delegations {
    fn delegate(&self, asked: service::Delegation) -> BoxFuture<'_, Result<(), service::Refusal>> {
        // Whoever also asks for a token does not wait for its homeserver to answer.
        let until = if asked.is_alone { Until::Judged } else { Until::Kept };
        let asked = Delegate {
            user: asked.admission.asker.user.as_str().to_owned(),
            conference: asked.admission.conference,
            identities: asked.identities,
            delay_id: asked.delay_id,
            timeout: asked.timeout,
            cs_api_url: asked.cs_api_url,
        };
        Box::pin(
            async move { Delegations::delegate(self, asked, until).await.map_err(service::Refusal::from) },
        )
    }
}

impl From<DelegateError> for service::Refusal {
    fn from(error: DelegateError) -> Self {
        match error {
            DelegateError::Refused(Refusal::TooMany) => Self::Busy,
            DelegateError::Refused(Refusal::Timeout) => {
                Self::Leave("delay_timeout must be from 2000 to 2678400000 milliseconds")
            }
            DelegateError::Refused(Refusal::DelayId) => {
                Self::Leave("delay_id is not the identifier of a delayed event")
            }
            DelegateError::Nowhere => {
                Self::Leave("where the client-server API of the user's homeserver is cannot be found out")
            }
            DelegateError::Unknown => Self::NoSuchLeave,
            DelegateError::Unsupported => Self::LeaveUnsupported,
            DelegateError::Closed => Self::NoFocus,
        }
    }
}
