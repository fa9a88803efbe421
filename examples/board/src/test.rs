//! All clients see each stroke, and strokes are still there after all clients have left.

use super::{COLOURS, STROKES_MAX, app};
use serde_json::{Value, json};
use tidegate::testing::{ConnRef, Server, serve};

fn received(server: &mut Server, conn: ConnRef) -> Vec<Value> {
    server
        .received(conn)
        .iter()
        .map(|message| message.json().unwrap())
        .collect()
}

#[test]
fn a_stroke_has_the_colour_of_its_author_and_is_stored() {
    let mut server = serve(app());
    let (ann, bob) = (server.connect("/boards/sea"), server.connect("/boards/sea"));
    let id = received(&mut server, ann)[0]["self"].clone();
    assert_eq!(
        received(&mut server, bob)[0]["members"][1]["meta"],
        COLOURS[1]
    );
    server.send(ann, r#"{"kind":"move","at":[1,2],"id":"forged"}"#);
    server.send(
        ann,
        r##"{"kind":"stroke","points":[[1,2],[3,4]],"colour":"#forged"}"##,
    );
    let stroke = json!({ "kind": "stroke", "points": [[1, 2], [3, 4]], "colour": COLOURS[0] });
    assert_eq!(
        received(&mut server, bob),
        [
            json!({ "kind": "move", "at": [1, 2], "id": id }),
            stroke.clone()
        ]
    );
    server.restart();
    assert_eq!(server.get("/boards/sea").json::<Vec<Value>>(), [stroke]);
    let eve = server.connect("/boards/sea");
    server.send(eve, r#"{"kind":"clear"}"#);
    assert_eq!(server.get("/boards/sea").text(), "[]");
}

#[test]
fn a_board_is_bounded() {
    let mut server = serve(app());
    let ann = server.connect("/boards/sea");
    for number in 0..STROKES_MAX + 3 {
        server.send(
            ann,
            format!(r#"{{"kind":"stroke","points":[[{number},0]]}}"#),
        );
    }
    let strokes: Vec<Value> = server.get("/boards/sea").json();
    assert_eq!(
        (strokes.len() as u64, &strokes[0]["points"][0][0]),
        (STROKES_MAX, &json!(3))
    );
    server.send(
        ann,
        json!({ "kind": "stroke", "points": vec![(0, 0); 257] }).to_string(),
    );
    assert_eq!(
        server.closed(ann),
        Some((1008, "a shorter stroke, please".into()))
    );
}
