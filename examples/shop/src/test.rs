//! The shop as its visitors see it, without a browser.

use super::*;
use tidegate::testing;

#[test]
fn a_page_holds_first_values_and_its_loaders_continue() {
    let mut server = testing::serve(app());
    let page = server.get("/products/rope");
    assert!(
        page.text()
            .contains("Ten metres of rope: worth every one of its 15 €")
            && page.text().contains("data-slot=\"stock.left\">7<")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("script-src 'nonce-")
    );
    let stock = server.load_some("/products/{id}", STOCK, &[("id", "rope")], 3);
    let left: Vec<u32> = stock
        .values::<Stock>()
        .into_iter()
        .map(|stock| stock.left)
        .collect();
    assert_eq!(
        (left, stock.took()),
        (vec![7, 6, 5], Duration::from_secs(1))
    );
    assert_eq!(
        server.get("/watchers").text(),
        "0",
        "a visitor who leaves is no longer counted"
    );
    assert_eq!(
        (
            server.get("/products/x").status(),
            server
                .load("/products/{id}", STOCK, &[("id", "x")])
                .error()
                .unwrap()
                .0
        ),
        (404, 404)
    );
}

#[test]
fn an_invalid_form_is_shown_again_with_its_errors() {
    let mut server = testing::serve(app());
    let bought = server.submit(
        "/products/rope",
        "buy",
        &[("amount", "2"), ("email", "ann@example.org")],
    );
    assert_eq!(
        (bought.status(), bought.header("location")),
        (303, Some("/products/rope"))
    );
    for (amount, email, wrong) in [
        ("99", "ann@x", "from 1 to 10"),
        ("2", "ann", "an address, please"),
        ("two", "ann@x", "invalid digit"),
    ] {
        let shown = server.submit(
            "/products/rope",
            "buy",
            &[("amount", amount), ("email", email)],
        );
        assert_eq!(shown.status(), 422);
        assert!(
            shown.text().contains(wrong) && shown.text().contains(&format!("value=\"{email}\"")),
            "{}",
            shown.text()
        );
    }
    let answer: serde_json::Value = server
        .submit_json(
            "/products/rope",
            "buy",
            &serde_json::json!({ "amount": 2, "email": "a@b" }),
        )
        .json();
    assert_eq!(
        answer,
        serde_json::json!({ "outcome": "success", "value": "2 for 30 €", "stale": ["stock"] })
    );
}
