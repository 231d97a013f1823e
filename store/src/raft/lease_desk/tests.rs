use super::*;

const LIMITS: DeskLimits =
    DeskLimits { max_waiting: 2, timeout: Duration::from_secs(5), resend_after: Duration::from_secs(1) };
const LEASE: LeaseId = LeaseId(9);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn desk(member: u64) -> LeaseDesk {
    LeaseDesk::new(MemberId(member), 1, LIMITS)
}

fn left() -> LeaseLeft {
    LeaseLeft { ttl_seconds: 10, remaining: at(10) }
}

#[test]
fn a_question_goes_to_the_leader_and_its_answer_comes_back() {
    let (mut follower, mut leader) = (desk(1), desk(2));
    follower.ask(Ticket(5), LeaseAsk::KeepAlive(LEASE), at(0));
    follower.ask(Ticket(6), LeaseAsk::Left(LeaseId(8)), at(0));
    let envelope = follower.send_to(MemberId(2), at(0)).unwrap();
    assert!(is_envelope(&envelope));
    assert!(follower.send_to(MemberId(2), at(0)).is_none(), "sent once");
    assert!(follower.send_to(MemberId(2), at(1)).is_some(), "and again when nothing is heard");
    leader.open(envelope, true, at(0));
    let batch = leader.next_batch(3, at(0)).unwrap();
    for question in leader.confirmed(batch, Some(3)).1 {
        let answer = match question.ask {
            LeaseAsk::KeepAlive(_) => Ok(left()),
            LeaseAsk::Left(id) => Err(KvError::LeaseNotFound(id)),
        };
        leader.answer(question, answer);
    }
    for reply in leader.take_replies() {
        follower.open(reply.clone(), false, at(1));
        follower.open(reply, false, at(1));
    }
    let settled = follower.take_settled();
    assert!(
        matches!(&settled[..], [(Ticket(5), Ok(found)), (Ticket(6), Err(KvError::LeaseNotFound(LeaseId(8))))]
            if *found == left()),
        "{settled:?}"
    );
}

#[test]
fn a_leader_that_was_replaced_answers_nothing() {
    let mut leader = desk(1);
    leader.ask(Ticket(1), LeaseAsk::KeepAlive(LEASE), at(0));
    leader.bring_here();
    let batch = leader.next_batch(3, at(0)).unwrap();
    assert!(leader.confirmed(batch, Some(4)).1.is_empty(), "another term");
    leader.stop_leading();
    assert!(leader.send_to(MemberId(2), at(0)).is_some(), "the new leader is asked");
    leader.expire(at(5));
    assert!(matches!(leader.take_settled()[..], [(Ticket(1), Err(KvError::Unavailable(_)))]));
}

#[test]
fn what_waits_is_bounded() {
    let mut leader = desk(1);
    for ticket in 0..3 {
        leader.ask(Ticket(ticket), LeaseAsk::KeepAlive(LEASE), at(0));
    }
    assert!(matches!(leader.take_settled()[..], [(Ticket(2), Err(KvError::Overloaded))]));
    let mut follower = desk(2);
    for round in 0..100 {
        follower.ask(Ticket(round), LeaseAsk::KeepAlive(LEASE), at(round * 6));
        follower.expire(at(round * 6));
        let envelope = follower.send_to(MemberId(1), at(round * 6)).unwrap();
        leader.open(envelope, true, at(0));
    }
    assert_eq!(leader.arrived.len(), LEADER_FACTOR * LIMITS.max_waiting);
    leader.expire(at(5));
    assert_eq!(leader.at_leader, 0);
}

#[test]
fn a_damaged_envelope_is_dropped() {
    let mut follower = desk(1);
    follower.ask(Ticket(1), LeaseAsk::KeepAlive(LEASE), at(0));
    let whole = follower.send_to(MemberId(2), at(0)).unwrap();
    for cut in 0..whole.context.len() {
        let mut message = whole.clone();
        message.context = whole.context.slice(..cut);
        let mut leader = desk(2);
        leader.open(message, true, at(0));
        assert!(leader.next_batch(1, at(0)).is_none(), "cut at {cut}");
    }
}
