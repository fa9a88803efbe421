//! The id of the last event that a client says it had.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};
use tidegate_hub::{Hub, Limits, Message, Positions, Publication};

fn hub() -> &'static Arc<Hub> {
    static HUB: OnceLock<Arc<Hub>> = OnceLock::new();
    HUB.get_or_init(|| {
        let hub = Hub::new(Limits::default(), Default::default(), 1);
        for number in 0..20 {
            hub.publish("tea", Publication::new(Message::text(number.to_string())))
                .expect("there is room");
        }
        hub
    })
}

fuzz_target!(|id: &str| {
    let positions = Positions::parse(id);
    let written = positions.to_string();
    assert_eq!(
        Positions::parse(&written).to_string(),
        written,
        "what is written is read again"
    );
    assert!(
        written.len() <= id.len() * 2 + 64,
        "no longer than what was sent"
    );
    let subscribed = hub().subscribe(vec!["tea".into(), "milk".into()], Some(&positions));
    assert!(subscribed.is_ok(), "an id of no use is a gap, and no error");
});
