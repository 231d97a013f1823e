use serde_json::json;

use super::*;

/// One level of one seat and one queue of two, for everybody.
fn narrow() -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "uid": format!("{name}-uid")});
    let all = json!({"subjects": [{"kind": "Group", "group": {"name": "*"}}], "nonResourceRules": [
        {"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    vec![
        json!({"kind": "PriorityLevelConfiguration", "metadata": meta("narrow"), "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue",
            "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}}}}),
        json!({"kind": "FlowSchema", "metadata": meta("all"), "spec": {"matchingPrecedence": 1,
            "priorityLevelConfiguration": {"name": "narrow"}, "rules": [all]}}),
    ]
}

fn flow() -> Arc<Flow> {
    let flow = Flow::new(1, Duration::from_secs(3));
    flow.configure(&narrow());
    flow
}

async fn enter(flow: &Arc<Flow>) -> Result<Seat, Refused> {
    let act = Attributes { verb: "get", path: "/x", ..Attributes::default() };
    flow.enter(&Identity::new("jane", &["dev"]), &act, 1).await
}

fn rendered(flow: &Flow) -> String {
    let mut text = Text::default();
    flow.render(&mut text);
    text.into_string()
}

#[tokio::test(start_paused = true)]
async fn a_seat_goes_from_one_to_the_next() {
    let flow = flow();
    let first = enter(&flow).await.expect("a seat");
    assert_eq!((&*first.class().schema, &*first.class().level), ("all", "narrow"));
    let second = tokio::spawn({
        let flow = flow.clone();
        async move { enter(&flow).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(rendered(&flow).contains("current_inqueue_requests{priority_level=\"narrow\"} 1"));
    drop(first);
    second.await.expect("no panic").expect("its turn came");
    let text = rendered(&flow);
    assert!(text.contains("current_executing_seats{priority_level=\"narrow\"} 0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_finds_no_place_is_refused() {
    let flow = flow();
    let _first = enter(&flow).await.expect("a seat");
    let (second, third, fourth) = tokio::join!(enter(&flow), enter(&flow), enter(&flow));
    let whys = [second, third, fourth].map(|entered| entered.err().map(|refused| refused.why));
    assert_eq!(whys, [Some(Rejection::TimeOut), Some(Rejection::TimeOut), Some(Rejection::QueueFull)]);
    let text = rendered(&flow);
    assert!(text.contains("priority_level=\"narrow\",flow_schema=\"all\",reason=\"time-out\"} 2"), "{text}");
    assert!(text.contains("current_inqueue_requests{priority_level=\"narrow\"} 0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_while_waiting_blocks_nobody() {
    let flow = flow();
    let first = enter(&flow).await.expect("a seat");
    let gone = tokio::time::timeout(Duration::from_secs(1), enter(&flow)).await;
    assert!(gone.is_err(), "it was still waiting");
    drop(first);
    enter(&flow).await.expect("the seat is free");
}

#[tokio::test(start_paused = true)]
async fn more_seats_serve_who_waits() {
    let flow = flow();
    let _first = enter(&flow).await.expect("a seat");
    let second = tokio::spawn({
        let flow = flow.clone();
        async move { enter(&flow).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let mut objects = narrow();
    objects[0]["spec"] = json!({"type": "Exempt"});
    flow.configure(&objects);
    enter(&flow).await.expect("an exempt level has no limit");
    drop(second);
}

#[test]
fn headers_name_the_class() {
    let class =
        Class { schema: "s".into(), level: "l".into(), schema_uid: "1".into(), level_uid: "2".into() };
    let mut response = too_many();
    class.mark(&mut response);
    let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("x-kubernetes-pf-flowschema-uid"), "1");
    assert_eq!(header("x-kubernetes-pf-prioritylevel-uid"), "2");
    assert_eq!((response.status().as_u16(), header("retry-after")), (429, "1".to_owned()));
}
