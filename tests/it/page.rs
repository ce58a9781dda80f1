//! Promise: the page of the admin listener shows people the state of everything, and nothing of a
//! browser's can be turned against it.

use reqwest::StatusCode;
use reqwest::header::HOST;

use crate::support::{PATIENCE, Rig};

/// The page once it holds this.
async fn page_with(rig: &Rig, text: &str) -> String {
    let looking = async {
        loop {
            let page = page(rig).await;
            if page.contains(text) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("the page gets there")
}

async fn page(rig: &Rig) -> String {
    let answer = rig.client.get(rig.admin_url("/")).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = answer.text().await.expect("text");
    assert!(!text.contains("<script") && !text.contains("http-equiv=\"refresh\" content=\"0"));
    assert!(!text.contains(crate::support::CANARY), "a secret is on the page");
    text
}

#[tokio::test]
async fn the_page_shows_credentials_quotas_stores_and_what_is_wrong_and_escapes_it() {
    let yaml = "quotas: {starter: {limit: 100/min, share: 1/2}}\ncredentials:\n  \
                - {name: reader, level: read_only, quota: starter, api_key: \"file:${DIR}/reader\"}\n";
    let mut rig = Rig::builder().await.config_in_dir(yaml).start().await;
    rig.get("/v1/datasets").await;
    let page = page_with(&rig, "does not expire").await;
    for text in ["reader", "read_only", "fresh", "starter", "100/min, 50 % of it", "<svg", "file"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let style = rig.client.get(rig.admin_url("/page.css")).send().await.expect("an answer");
    assert_eq!(style.headers()["content-type"], "text/css; charset=utf-8");
    rig.reconfigure("\"<img src=x>\": 1\n");
    let page = page_with(&rig, "not in force").await;
    assert!(page.contains("unknown key") && !page.contains("<img"), "{page}");
    rig.finish().await;
}

#[tokio::test]
async fn a_foreign_host_gets_no_page() {
    let rig = Rig::start().await;
    for path in ["/", "/page.css", "/status"] {
        let call = rig.client.get(rig.admin_url(path)).header(HOST, "evil.example");
        let answer = call.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
    }
    rig.finish().await;
}
