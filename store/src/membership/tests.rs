use super::*;

fn founded(count: u64) -> Membership {
    let identified = |id| MemberInfo { incarnation: 7, ..MemberInfo::new(MemberId(id), format!("m{id}:1")) };
    Membership::found((1..=count).map(identified))
}

fn add(id: u64, learner: bool) -> MemberChange {
    MemberChange::Add { id: MemberId(id), peer_address: format!("m{id}:1"), learner }
}

fn view(healthy: &[u64], matched: u64) -> LeaderView {
    LeaderView {
        leader: MemberId(1),
        healthy: healthy.iter().copied().map(MemberId).collect(),
        matched: (1..10).map(|id| (MemberId(id), matched)).collect(),
        last: 1000,
    }
}

#[test]
fn an_id_is_used_once_for_ever() {
    let mut members = founded(2);
    assert_eq!(members.next_id(), MemberId(3));
    members.apply(&add(3, true)).unwrap();
    members.apply(&MemberChange::Remove(MemberId(3))).unwrap();
    assert!(members.was_removed(MemberId(3)));
    assert_eq!(members.next_id(), MemberId(4));
    assert_eq!(members.apply(&add(3, true)), Err(Refusal::IdUsed(MemberId(3))));
    assert_eq!(members.apply(&add(2, true)), Err(Refusal::IdUsed(MemberId(2))));
    let mut largest = Membership::found([MemberInfo::new(MemberId(u64::MAX), "m:1")]);
    assert_eq!(largest.next_id(), MemberId(1));
    largest.apply(&add(1, true)).unwrap();
    assert_eq!(largest.next_id(), MemberId(2));
}

#[test]
fn an_incarnation_is_recorded_once() {
    let (mut members, id) = (founded(1), MemberId(2));
    members.apply(&add(2, true)).unwrap();
    let identify = |incarnation| MemberChange::Identify { id, incarnation };
    members.apply(&identify(9)).unwrap();
    assert_eq!(members.apply(&identify(9)).unwrap().incarnation, 9, "said again");
    assert_eq!(members.apply(&identify(8)), Err(Refusal::IdUsed(id)), "another directory");
    assert_eq!(Membership::decode(members.encode().into()).unwrap(), members);
}

#[test]
fn a_replacement_needs_both_majorities_until_it_is_left() {
    let mut members = founded(3);
    members.apply(&add(4, true)).unwrap();
    members.apply(&MemberChange::Replace { old: MemberId(2), new: MemberId(4) }).unwrap();
    let votes = members.conf_state();
    assert_eq!((votes.get_voters(), votes.get_voters_outgoing()), (&[1, 3, 4][..], &[1, 2, 3][..]));
    assert_eq!(members.apply(&add(5, true)), Err(Refusal::Pending));
    let back = Membership::decode(members.encode().into()).unwrap();
    assert_eq!(back, members);
    assert!(members.leave_joint() && !members.leave_joint());
    assert_eq!(members.voters(), [1, 3, 4].map(MemberId));
    assert!(members.was_removed(MemberId(2)));
    assert!(members.conf_state().get_voters_outgoing().is_empty());
}

#[test]
fn a_leader_refuses_what_could_cost_the_quorum() {
    let (three, one) = (founded(3), founded(1));
    let judge_all = |members: &Membership, change: MemberChange, healthy: &[u64]| {
        judge(members, &change, &view(healthy, 1000)).is_ok()
    };
    assert!(judge_all(&one, add(2, false), &[1]), "one grows to two, as in etcd");
    assert!(judge_all(&three, add(4, false), &[1, 2, 3]));
    assert!(!judge_all(&three, add(4, false), &[1, 2]), "one of three is missing");
    assert!(judge_all(&three, add(4, true), &[1, 2]), "a learner changes no quorum");
    assert!(judge_all(&three, MemberChange::Remove(MemberId(3)), &[1, 2]), "the missing one may go");
    assert!(!judge_all(&three, MemberChange::Remove(MemberId(2)), &[1, 2]));
    assert!(!judge_all(&one, MemberChange::Remove(MemberId(1)), &[1]));
    let mut four = three.clone();
    four.apply(&add(4, true)).unwrap();
    let promote = MemberChange::Promote(MemberId(4));
    assert!(!judge_all(&four, promote.clone(), &[1, 2, 3, 4]), "nobody knows the learner's directory");
    assert!(judge_all(&four, add(5, false), &[1, 2, 3, 4]), "a learner has no vote to lose");
    four.apply(&MemberChange::Identify { id: MemberId(4), incarnation: 9 }).unwrap();
    assert!(judge_all(&four, promote.clone(), &[1, 2, 4]));
    assert!(!judge_all(&four, promote.clone(), &[1, 2, 3]), "the learner itself is missing");
    let behind = judge(&four, &promote, &view(&[1, 2, 3, 4], 899));
    assert!(matches!(behind, Err(Refusal::LearnerNotReady { matched: 899, last: 1000, .. })));
    assert!(judge(&four, &promote, &view(&[1, 2, 3, 4], 900)).is_ok());
    assert_eq!(judge(&four, &add(5, true), &view(&[1, 2, 3], 0)), Err(Refusal::TooManyLearners(1)));
}

#[test]
fn changes_and_refusals_survive_the_log_and_a_cut_one_is_an_error() {
    use crate::codec::{Reader, Writer};
    let id = MemberId(7);
    let refusals = [
        Refusal::NotFound(id),
        Refusal::Exists { address: "a:1".into(), member: id },
        Refusal::IdUsed(id),
        Refusal::NotLearner(id),
        Refusal::LearnerNotReady { member: id, matched: 1, last: 2 },
        Refusal::TooManyLearners(3),
        Refusal::Unhealthy("why".into()),
        Refusal::LastVoter(id),
        Refusal::Pending,
        Refusal::Address("x".into()),
        Refusal::Unreachable(id),
    ];
    let publish =
        MemberChange::Publish { id, name: "n".into(), client_urls: vec!["http://a".into(), "b".into()] };
    let update = MemberChange::Update { id, peer_address: "b:2".into() };
    let identify = MemberChange::Identify { id, incarnation: 9 };
    let others = [
        add(7, true),
        MemberChange::Promote(id),
        MemberChange::Remove(id),
        MemberChange::Replace { old: id, new: MemberId(8) },
    ];
    let all =
        refusals.map(MemberChange::Refused).into_iter().chain(others).chain([publish, update, identify]);
    for change in all {
        let mut out = Writer::with_capacity(64);
        change.encode(&mut out);
        let bytes = out.finish();
        assert_eq!(MemberChange::decode(&mut Reader::new(bytes.clone())).unwrap(), change);
        for cut in 0..bytes.len() {
            assert!(MemberChange::decode(&mut Reader::new(bytes[..cut].to_vec())).is_err(), "{change:?}");
        }
    }
}

#[test]
fn a_peer_address_has_a_host_and_a_port() {
    for good in ["host:1", "127.0.0.1:2380", "[::1]:2380"] {
        assert_eq!(check_address(good), Ok(()), "{good}");
    }
    for bad in ["", "host", ":1", "host:", "host:0", "host:x", "http://host:1"] {
        assert_eq!(check_address(bad), Err(Refusal::Address(bad.into())));
    }
}
