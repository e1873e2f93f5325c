//! Queries to the resolver and their answers.

use std::net::IpAddr;

use super::{NO_SUCH_NAME, NOT_IMPLEMENTED, TYPE_A, TYPE_AAAA, answer, instance_address};

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn known(name: &str) -> Option<Vec<IpAddr>> {
    let both = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    (name == "db.example").then(|| both.to_vec())
}

#[test]
fn each_family_is_answered_with_its_own_addresses() {
    for (kind, address) in [
        (TYPE_A, "192.0.2.1".parse::<IpAddr>().unwrap()),
        (TYPE_AAAA, "2001:db8::1".parse().unwrap()),
    ] {
        let reply = answer(&query("DB.example", kind), known).unwrap();
        assert_eq!(reply[..2], [0xab, 0xcd]);
        assert_eq!(reply[2..4], [0x85, 0x80], "an answer without an error");
        assert_eq!(reply[6..8], [0, 1], "one record");
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert!(reply.ends_with(&bytes));
    }
}

#[test]
fn a_name_without_records_of_the_type_exists_and_an_unknown_one_does_not() {
    let mail = answer(&query("db.example", 15), known).unwrap();
    assert_eq!((mail[3] & 15, &mail[6..8]), (0, &[0, 0][..]));
    let unknown = answer(&query("no.example", TYPE_A), known).unwrap();
    assert_eq!(u16::from(unknown[3] & 15), NO_SUCH_NAME);
}

#[test]
fn a_message_that_is_not_a_query_gets_no_answer() {
    let good = query("db.example", TYPE_A);
    for cut in 0..good.len() {
        assert_eq!(answer(&good[..cut], known), None, "{cut} bytes");
    }
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(answer(&response, known), None);
    let mut update = good;
    update[2] |= 0x28;
    let refused = answer(&update, known).unwrap();
    assert_eq!(u16::from(refused[3] & 15), NOT_IMPLEMENTED);
}

#[test]
fn an_instance_has_the_name_that_its_address_makes() {
    let name = "ip-10-0-0-5.us-west-2.compute.internal";
    let address = instance_address(name, "us-west-2");
    assert_eq!(address, Some("10.0.0.5".parse().unwrap()));
    assert_eq!(instance_address(name, "eu-west-1"), None);
}
