//! Access lists.

use vpp_api_client::messages::{
    AclAction, AclAddReplace, AclDel, AclDump, AclInterfaceListDump, AclInterfaceSetAclList, AclRule, IpProto,
};
use vpp_api_client::{Prefix, Retval};

use super::{loopback, prefix, refused, start};

fn rule(is_permit: AclAction, src: &str, proto: IpProto) -> AclRule {
    AclRule {
        is_permit,
        src_prefix: prefix(src),
        dst_prefix: prefix("0.0.0.0/0"),
        proto,
        srcport_or_icmptype_last: u16::MAX,
        dstport_or_icmpcode_last: u16::MAX,
        ..Default::default()
    }
}

#[tokio::test]
async fn lists_are_made_replaced_bound_and_removed() {
    let (_vpp, client) = start().await;
    // Protocol 4, IP in IP, has no name in VPP's definitions; it takes any.
    let rules = vec![
        rule(AclAction::PermitReflect, "10.0.0.0/8", IpProto::TCP),
        rule(AclAction::Deny, "0.0.0.0/0", IpProto(4)),
    ];
    let add = AclAddReplace { tag: "mine".into(), r: rules.clone(), ..Default::default() };
    let acl_index = client.call(&add).await.unwrap().acl_index;
    let found = client.dump(&AclDump { acl_index }).await.unwrap();
    assert_eq!((found.len(), found[0].tag.as_str(), &found[0].r), (1, "mine", &rules));
    let other = client.call(&AclAddReplace { r: Vec::new(), ..add.clone() }).await.unwrap().acl_index;
    let replaced = AclAddReplace { acl_index, r: rules[..1].to_vec(), ..add.clone() };
    assert_eq!(client.call(&replaced).await.unwrap().acl_index, acl_index);
    let all = client.dump(&AclDump::default()).await.unwrap();
    assert_eq!(all.iter().map(|of| (of.acl_index, of.r.len())).collect::<Vec<_>>(), [(acl_index, 1), (other, 0)]);

    let sw_if_index = loopback(&client).await;
    let bind = AclInterfaceSetAclList { sw_if_index, n_input: 1, acls: vec![acl_index, other] };
    client.call(&bind).await.unwrap();
    let bound = client.dump(&AclInterfaceListDump { sw_if_index }).await.unwrap();
    assert_eq!((bound.len(), bound[0].n_input, &bound[0].acls), (1, 1, &bind.acls));
    assert_eq!(refused(client.call(&AclDel { acl_index }).await), Retval::AclInUseInbound);
    assert_eq!(refused(client.call(&AclDel { acl_index: other }).await), Retval::AclInUseOutbound);
    let none = AclInterfaceSetAclList { sw_if_index, n_input: 0, acls: Vec::new() };
    client.call(&none).await.unwrap();
    for acl_index in [acl_index, other] {
        client.call(&AclDel { acl_index }).await.unwrap();
    }
    assert_eq!(refused(client.call(&AclDel { acl_index }).await), Retval::NoSuchEntry);
}

#[tokio::test]
async fn a_rule_that_is_none_is_refused() {
    let (_vpp, client) = start().await;
    let mut mixed = rule(AclAction::Permit, "10.0.0.0/8", IpProto::default());
    mixed.dst_prefix = Prefix::new("fd00::".parse::<std::net::IpAddr>().unwrap(), 64).unwrap();
    let host_bits = rule(AclAction::Permit, "10.0.0.1/8", IpProto::default());
    for r in [mixed, host_bits] {
        let add = AclAddReplace { r: vec![r], ..Default::default() };
        assert_eq!(refused(client.call(&add).await), Retval::InvalidSrcAddress);
    }
    // The same list twice.
    let all = vec![rule(AclAction::Permit, "0.0.0.0/0", IpProto::default())];
    let acl_index = client.call(&AclAddReplace { r: all, ..Default::default() }).await.unwrap().acl_index;
    let sw_if_index = loopback(&client).await;
    let twice = AclInterfaceSetAclList { sw_if_index, n_input: 2, acls: vec![acl_index, acl_index] };
    assert_eq!(refused(client.call(&twice).await), Retval::Other(1));
}
