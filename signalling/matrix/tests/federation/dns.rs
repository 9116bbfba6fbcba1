//! A name server with a table.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// Names, without the dot at the end, and what there is.
#[derive(Clone, Default)]
pub struct Zone {
    addresses: BTreeMap<String, Vec<Ipv4Addr>>,
    services: BTreeMap<String, Vec<(u16, u16, u16, String)>>,
}

impl Zone {
    pub fn address(mut self, name: &str, address: Ipv4Addr) -> Self {
        self.addresses.entry(name.to_owned()).or_default().push(address);
        self
    }

    /// Priority, weight, port, target.
    pub fn service(mut self, name: &str, srv: (u16, u16, u16, &str)) -> Self {
        let (priority, weight, port, target) = srv;
        self.services.entry(name.to_owned()).or_default().push((priority, weight, port, target.to_owned()));
        self
    }

    /// Answers until the test's runtime ends.
    pub async fn serve(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                if let Some(answer) = self.answer(&datagram[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        at
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_available = true;
        let records: Vec<RData> = match query.query_type() {
            RecordType::A => {
                self.addresses.get(&name).into_iter().flatten().map(|address| RData::A(A(*address))).collect()
            }
            RecordType::SRV => {
                let services = self.services.get(&name).into_iter().flatten();
                let srv = |(priority, weight, port, target): &(u16, u16, u16, String)| {
                    let target = Name::from_ascii(format!("{target}.")).unwrap();
                    RData::SRV(SRV::new(*priority, *weight, *port, target))
                };
                services.map(srv).collect()
            }
            _ => Vec::new(),
        };
        if records.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        for data in records {
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        answer.add_query(query);
        answer.to_vec().ok()
    }
}
