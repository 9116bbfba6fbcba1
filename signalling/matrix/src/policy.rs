//! Who gets which rights in a conference: asked once for each token, after the homeserver has said who asks.

use futures_util::future::BoxFuture;

use crate::names::{ServerName, UserId};

/// Who asks for a token, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Vouched for by the user's homeserver.
    pub user: UserId,
    /// The Matrix room, as the client named it: nobody has said yet that it exists.
    pub room_id: String,
    pub slot_id: String,
}

/// What a token lets its bearer do. Everybody who gets one may join and subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Open the conference if there is none yet. Others join what exists.
    pub create: bool,
    pub publish: bool,
}

/// Decides. `None` is a refusal: the client learns that it may not join, and nothing about the room.
pub trait Policy: Send + Sync + 'static {
    fn decide<'a>(&'a self, asker: &'a Asker) -> BoxFuture<'a, Option<Grants>>;
}

/// Servers whose users have a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    All,
    Listed(Vec<ServerName>),
}

impl Servers {
    pub fn contain(&self, server: &ServerName) -> bool {
        match self {
            Self::All => true,
            Self::Listed(servers) => servers.contains(server),
        }
    }
}

/// Rights by where somebody comes from. Whoever has a homeserver may join: nothing is known of rooms here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByServer {
    pub creators: Servers,
    pub publishers: Servers,
}

impl ByServer {
    pub fn grants(&self, user: &UserId) -> Grants {
        Grants {
            create: self.creators.contain(user.server()),
            publish: self.publishers.contain(user.server()),
        }
    }
}

impl Policy for ByServer {
    fn decide<'a>(&'a self, asker: &'a Asker) -> BoxFuture<'a, Option<Grants>> {
        Box::pin(std::future::ready(Some(self.grants(&asker.user))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_listed_servers_create_and_publish_and_others_only_join() {
        let ours = ServerName::parse("lab.example").unwrap();
        let rules = ByServer {
            creators: Servers::Listed(vec![ours.clone()]),
            publishers: Servers::Listed(vec![ours]),
        };
        let grants = |id| rules.grants(&UserId::parse(id).unwrap());
        assert_eq!(grants("@dana:lab.example"), Grants { create: true, publish: true });
        // Another port is another server, and so is a name below.
        for id in ["@dana:else.example", "@dana:lab.example:8448", "@dana:a.lab.example"] {
            assert_eq!(grants(id), Grants { create: false, publish: false }, "{id}");
        }
        let open = ByServer { publishers: Servers::All, ..rules };
        assert_eq!(
            open.grants(&UserId::parse("@x:else.example").unwrap()),
            Grants { create: false, publish: true }
        );
    }
}
