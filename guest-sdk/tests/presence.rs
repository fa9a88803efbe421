//! Presence while clients come and go: the view of each client equals the members of the room.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate::{
    prelude::*,
    testing::{self, ConnRef, Server},
};

/// A connection joins the presence when it opens, and its messages change it. The name of a client
/// selects the failure of its hooks.
#[derive(Default)]
struct Crowd;

impl Room for Crowd {
    async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
        let name: String = req.query("name")?;
        cx.put_json("opened", &name)?; // a commit is needed, which can fail
        cx.presence().join(conn, &json!({ "name": name }))?;
        match name.as_str() {
            "refused" => Err(Error::bad_request("not you")),
            "panics" => panic!("at the door"),
            _ => Ok(()),
        }
    }

    async fn message(&mut self, cx: &Cx, conn: &Conn, msg: Message) -> Result {
        match msg.text()? {
            "leave" => cx.presence().leave(conn),
            "join" => cx.presence().join(conn, &json!({ "name": "again" })),
            "update" => cx.presence().update(conn, &json!({ "name": "other" })),
            "fail" => {
                cx.presence().leave(conn)?;
                Err(Error::bad_request("undone"))
            }
            "panic" => {
                cx.presence().update(conn, &json!({ "name": "undone" }))?;
                panic!("as asked")
            }
            _ => conn.set_attachment(b"no JSON"),
        }
    }

    async fn close(&mut self, cx: &Cx, conn: &Conn, _: &CloseEvent) -> Result {
        let here = cx.presence().list::<Value>()?;
        assert!(
            here.iter().all(|member| member.id != conn.id()),
            "a client that left is not a member"
        );
        match conn.state::<Value>() {
            Ok(Some(meta)) if meta["name"] == "other" => Err(Error::fault("the hook fails")),
            Ok(Some(meta)) if meta["name"] == "again" => panic!("the hook panics"),
            _ => Ok(()),
        }
    }

    async fn request(&mut self, cx: &Cx, _: Request) -> Result<Response> {
        Ok(Response::text(cx.presence().snapshot()))
    }

    async fn feed(&mut self, cx: &Cx, _: Request) -> Result<Feed> {
        Ok(Feed::new().first(cx.presence().snapshot()))
    }
}

fn server() -> Server {
    testing::serve(App::new().room::<Crowd>("/rooms/{name}"))
}

/// The members as a client sees them: metas by id.
#[derive(Debug, Default, PartialEq)]
struct Seen(BTreeMap<String, Value>);

impl Seen {
    fn of_snapshot(notice: &Value) -> Seen {
        let members = notice["members"].as_array().unwrap().iter();
        let seen: BTreeMap<_, _> = members
            .clone()
            .map(|member| (text(&member["id"]), member["meta"].clone()))
            .collect();
        assert_eq!(
            seen.len(),
            members.len(),
            "no member is twice in a snapshot"
        );
        Seen(seen)
    }

    fn hear(&mut self, notice: &Value) {
        let (id, meta) = (text(&notice["id"]), notice["meta"].clone());
        match notice["kind"].as_str().unwrap() {
            "snapshot" => {
                *self = Seen::of_snapshot(notice);
                assert!(
                    self.0.contains_key(notice["self"].as_str().unwrap()),
                    "a newcomer sees itself"
                );
            }
            "join" => assert_eq!(self.0.insert(id, meta), None, "no member joins twice"),
            "update" => assert!(
                self.0.insert(id, meta).is_some(),
                "a member that changes is there"
            ),
            "leave" => assert!(
                self.0.remove(&id).is_some(),
                "a member that leaves was there"
            ),
            kind => panic!("{kind}"),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn truth(server: &mut Server) -> Seen {
    Seen::of_snapshot(&server.get("/rooms/tea").json())
}

/// Returns pseudo-random numbers that are the same in each run (Knuth's MMIX).
fn next(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 33) as usize
}

#[test]
fn under_churn_each_member_is_counted_exactly_once() {
    let mut state = 7;
    let mut server = server();
    let mut clients: Vec<(ConnRef, Seen)> = Vec::new();
    let mut longest = 0;
    for step in 0..3000 {
        let chosen = (!clients.is_empty()).then(|| clients[next(&mut state) % clients.len()].0);
        match (next(&mut state) % 16, chosen) {
            (0..=4, _) => {
                let name = ["ann", "bob", "eve", "refused", "panics"][next(&mut state) % 5];
                clients.push((
                    server.connect(format!("/rooms/tea?name={name}").as_str()),
                    Seen::default(),
                ));
            }
            (5, _) => {
                server.fail_next_commit();
                clients.push((server.connect("/rooms/tea?name=lost"), Seen::default()));
            }
            (6, _) => server.sleep("/rooms/tea"),
            (7, Some(chosen)) => server.close(chosen),
            (8, Some(chosen)) => server.disconnect(chosen),
            (what @ 9..=15, Some(chosen)) => {
                let text = [
                    "leave", "join", "update", "update", "fail", "panic", "garble",
                ][what - 9];
                if server.closed(chosen).is_none() {
                    server.send(chosen, text);
                }
            }
            _ => {}
        }
        let truth = truth(&mut server);
        longest = longest.max(truth.0.len());
        for (conn, seen) in &mut clients {
            server
                .received(*conn)
                .iter()
                .for_each(|message| seen.hear(&message.json().unwrap()));
        }
        clients.retain(|(conn, _)| server.closed(*conn).is_none());
        for (_, seen) in &clients {
            // A garbled state is not published before the next change.
            assert!(
                seen.0.keys().eq(truth.0.keys()),
                "step {step}: {seen:?} is not {truth:?}"
            );
            let metas = seen.0.values().zip(truth.0.values());
            assert!(
                metas
                    .clone()
                    .all(|(seen, truth)| truth.is_null() || seen == truth),
                "step {step}: {seen:?} is not {truth:?}"
            );
        }
    }
    assert!(longest > 4, "there was a crowd: {longest}");
}

#[test]
fn a_feed_hears_who_comes_and_goes() {
    let mut server = server();
    server.connect("/rooms/tea?name=ann");
    let feed = server.subscribe("/rooms/tea");
    let bob = server.connect("/rooms/tea?name=bob");
    server.close(bob);
    let told: Vec<Value> = server
        .events(feed)
        .iter()
        .map(|event| serde_json::from_str(event.data()).unwrap())
        .collect();
    let kinds: Vec<&Value> = told.iter().map(|notice| &notice["kind"]).collect();
    assert_eq!(kinds, ["snapshot", "join", "leave"]);
    assert_eq!(
        (
            told[0].get("self"),
            told[0]["members"].as_array().unwrap().len()
        ),
        (None, 1)
    );
}

#[test]
fn messages_are_as_they_are_written_down() {
    let mut server = server();
    let ann = server.connect("/rooms/tea?name=ann");
    let bob = server.connect("/rooms/tea?name=bob");
    let ids: Vec<String> = truth(&mut server).0.into_keys().collect();
    let [a, b] = [&ids[0], &ids[1]];
    server.send(bob, "update");
    server.close(bob);
    assert_eq!(
        server.received(ann),
        [
            format!(
                r#"{{"kind":"snapshot","self":"{a}","members":[{{"id":"{a}","meta":{{"name":"ann"}}}}]}}"#
            ),
            format!(r#"{{"kind":"join","id":"{b}","meta":{{"name":"bob"}}}}"#),
            format!(r#"{{"kind":"update","id":"{b}","meta":{{"name":"other"}}}}"#),
            format!(r#"{{"kind":"leave","id":"{b}","meta":{{"name":"other"}}}}"#),
        ]
    );
}
