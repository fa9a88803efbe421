//! How connections end under `tidegate::testing`: as they do behind the host.

use std::sync::{Arc, Mutex};
use tidegate::{prelude::*, testing};

/// Tells what its hooks were given, and what became of a message that it sent too late.
struct Told(Arc<Mutex<Vec<String>>>);

impl Socket for Told {
    async fn message(&self, conn: &Conn, msg: Message) -> Result {
        match msg.text()? {
            "leave" => conn.close(4001, "as you wish"),
            "fail" => Err(Error::fault("out of ideas")),
            _ => conn.send("go on"),
        }
    }

    async fn close(&self, conn: &Conn, info: &CloseInfo) -> Result {
        let late = conn.send("late").is_err();
        self.0.lock().unwrap().push(format!("{} clean={} by_peer={} late refused={late}", info.code, info.clean, info.by_peer));
        Ok(())
    }
}

#[test]
fn every_end_is_told_once_and_nothing_is_sent_behind_it() {
    type End = fn(&mut testing::Server, testing::ConnRef);
    let ends: [(&str, End, &str); 4] = [
        ("the client closes", |server, ann| server.close(ann), "1000 clean=true by_peer=true"),
        ("the client vanishes", |server, ann| server.vanish(ann), "1006 clean=false by_peer=true"),
        ("the app closes", |server, ann| server.say(ann, "leave"), "4001 clean=true by_peer=false"),
        ("the app fails", |server, ann| server.say(ann, "fail"), "1011 clean=true by_peer=false"),
    ];
    for (how, end, expected) in ends {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut server = testing::serve(App::new().socket("/", Told(told.clone())));
        let (ann, bob) = (server.connect("/"), server.connect("/"));
        end(&mut server, ann);
        assert_eq!(*told.lock().unwrap(), [format!("{expected} late refused=true")], "{how}");
        assert_eq!(server.closed(ann).map(|(code, _)| code.to_string()).as_deref(), expected.split(' ').next(), "{how}");
        server.say(bob, "and you?");
        assert_eq!(server.heard(bob), ["go on"], "{how}");
    }
}
