//! Who gets which rights in a conference: asked once for each token, after the homeserver has said who asks.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::names::{ServerName, UserId};
use crate::rooms::{Door, RoomRule};

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

/// Why somebody gets no rights. Clients learn nothing about the room from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// By what is known of the room.
    NotAllowed,
    /// It cannot be said now, so that it makes sense to ask again.
    Undecided,
}

/// Decides.
pub trait Policy: Send + Sync + 'static {
    fn decide<'a>(&'a self, asker: &'a Asker) -> BoxFuture<'a, Result<Grants, Denied>>;
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
    fn decide<'a>(&'a self, asker: &'a Asker) -> BoxFuture<'a, Result<Grants, Denied>> {
        Box::pin(std::future::ready(Ok(self.grants(&asker.user))))
    }
}

/// Rights by where somebody comes from, for those who are in the room.
pub struct ByRoom {
    pub rule: RoomRule,
    pub servers: ByServer,
    pub door: Arc<Door>,
}

impl Policy for ByRoom {
    fn decide<'a>(&'a self, asker: &'a Asker) -> BoxFuture<'a, Result<Grants, Denied>> {
        Box::pin(async move {
            let may_join = match self.rule {
                RoomRule::Off => true,
                rule => match self.door.presence(&asker.room_id, &asker.user).await {
                    Ok(presence) => rule.lets_in(presence),
                    Err(error) => {
                        tracing::warn!(%error, "no token is given, since the room's members are not known");
                        return Err(Denied::Undecided);
                    }
                },
            };
            may_join.then(|| self.servers.grants(&asker.user)).ok_or(Denied::NotAllowed)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rooms::{Members, MembersError};
    use crate::store::Store;

    /// Sees one room, with dana in it, and has a bad day with another.
    struct OneRoom;

    impl Members for OneRoom {
        fn members<'a>(
            &'a self,
            room_id: &'a str,
        ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
            let answer = match room_id {
                "!seen" => Ok(Some([UserId::parse("@dana:lab.example").unwrap()].into())),
                "!broken" => Err(MembersError::TooLate),
                _ => Ok(None),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    #[tokio::test]
    async fn the_rule_says_whether_strangers_and_rooms_out_of_sight_are_let_in() {
        use RoomRule::{Off, Require, WhenVisible};
        let (door, _removed) = Door::open(Store::in_memory().unwrap(), Arc::new(OneRoom)).await.unwrap();
        let door = Arc::new(door);
        for (room_id, user, let_in) in [
            ("!seen", "@dana:lab.example", &[Require, WhenVisible, Off][..]),
            ("!seen", "@eve:else.example", &[Off]),
            ("!hidden", "@dana:lab.example", &[WhenVisible, Off]),
            ("!broken", "@dana:lab.example", &[Off]),
        ] {
            let denied = if room_id == "!broken" { Denied::Undecided } else { Denied::NotAllowed };
            for rule in [Require, WhenVisible, Off] {
                let servers = ByServer { creators: Servers::All, publishers: Servers::Listed(Vec::new()) };
                let policy = ByRoom { rule, servers, door: Arc::clone(&door) };
                let user = UserId::parse(user).unwrap();
                let asker = Asker { user, room_id: room_id.to_owned(), slot_id: "s".to_owned() };
                let expected = match let_in.contains(&rule) {
                    true => Ok(Grants { create: true, publish: false }),
                    false => Err(denied),
                };
                assert_eq!(policy.decide(&asker).await, expected, "{room_id} {rule:?} {asker:?}");
            }
        }
    }

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
