use std::time::Duration;

use super::*;
use crate::config::model::{Choice, ForwardedFor};

fn strict() -> FrontDoor {
    FrontDoor {
        browser_origin: Choice::Refuse,
        forwarded_for: ForwardedFor::Strip,
        body_on_get: Choice::Refuse,
        header_timeout: Duration::from_secs(10),
        max_connections: 1,
    }
}

fn code(head: &str) -> u16 {
    judge(head.as_bytes(), &strict(), &["app.test".into()], None)
        .map_or_else(|rejection| rejection.status().as_u16(), |_| 200)
}

#[track_caller]
fn check_target(target: &str, want: u16) {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(code(&head), want, "{target:?}");
}

#[track_caller]
fn check_headers(lines: &str, want: u16) {
    let head = format!("POST /v1/x HTTP/1.1\r\nHost: localhost:8080\r\n{lines}\r\n");
    assert_eq!(code(&head), want, "{lines:?}");
}

#[test]
fn targets_with_a_second_meaning_are_refused() {
    for target in [
        "*",
        "foo",
        "@evil.example/",
        "//evil/x",
        "http://a/x",
        "localhost:80",
        "",
        "/a#/../b",
        "/a b",
        "/a\\b",
        "/a\0",
        "/é",
        "/v1/../x",
        "/v1/.",
        "/v1/./x",
        "/%2e%2e/x",
        "/%2E./x",
        "/.%2e",
        "/..%2fx",
        "/x%2f..",
        "/x%2F%2e%2e%2Fy",
        "/%252e%252e/x",
        "/%252e",
        "/..;/x",
        "/.;/x",
        "/..;a=b/x",
        "/;../x",
        "/..%5cx",
        "/%5c",
        "/%255c",
        "/%c0%ae%c0%ae/x",
        "/%c0%af",
        "/%25c0%25ae",
        "/%0d%0aX:y",
        "/%00",
        "/%2500",
        "/%7f",
        "/%ff",
        "/%",
        "/%2",
        "/%zz",
        "/..%20/x",
        "/x%252f..",
        "/<",
    ] {
        check_target(target, 400);
    }
}

#[test]
fn ordinary_targets_go_out_as_they_came() {
    for target in [
        "/",
        "/v1/users",
        "/v1/a%2Fb",
        "/100%25",
        "/a//b",
        "/a/",
        "/v1/%75sers",
        "/v1/x?a=../..",
        "/x?q=%zz&b=%00",
        "/a;b=c",
        "/...",
        "/.well-known/x",
        "/a.b",
        "/%C3%A9",
        "/a..b",
        "/x?",
        "/x?a=[1]&b={c}|d",
        "/a:b@c,d;e=f!$&'()*+",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = judge(head.as_bytes(), &strict(), &[], None).expect(target);
        assert_eq!(head.target.raw().as_str(), target);
    }
}

#[test]
fn segments_are_cut_first_and_decoded_once() {
    let head = b"GET /v1/%75sers//a%2Fb/%2541?x/y HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let target = judge(head, &strict(), &[], None).unwrap().target;
    assert_eq!(target.segments(), ["v1", "users", "", "a/b", "%41"]);
    assert_eq!((target.path(), target.query()), ("/v1/%75sers//a%2Fb/%2541", Some("x/y")));
}

#[test]
fn ambiguous_framing_is_refused() {
    for lines in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\ncontent-length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 002\r\n",
        "Content-Length: 00\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 2_0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 2 \x0b\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \u{a0}chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length : 2\r\n",
        "X: a\r\n b\r\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
        "X: a\r\r\n",
        "X: \0\r\n",
        ": a\r\n",
        " X: a\r\n",
        "X\u{e9}: a\r\n",
        "X\r\n",
        "Connection: content-length\r\n",
        "Connection: close, Transfer-Encoding\r\n",
        "Connection: ,HOST\r\n",
        "Connection: x-forwarded-for\r\n",
        "Connection: \"a\"\r\n",
        "Connection: a,b,c,d,e\r\nConnection: f,g,h,i,j\r\n",
        "Host: localhost\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c, websocket\r\n",
    ] {
        check_headers(lines, 400);
    }
    let http10 = "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(code(http10), 400);
}

#[test]
fn only_one_exact_expectation_is_met() {
    for (lines, want) in [
        ("Expect: 100-continue\r\n", 200),
        ("Expect: y 100-continue\r\n", 417),
        ("Expect: 100-continue, x\r\n", 417),
        ("Expect:\r\n", 417),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", 417),
    ] {
        check_headers(lines, want);
    }
}

#[test]
fn request_lines_are_strict_and_methods_listed() {
    for (line, want) in [
        ("GET / HTTP/1.1", 200),
        ("DELETE / HTTP/1.0", 200),
        ("OPTIONS / HTTP/1.1", 200),
        ("TRACE / HTTP/1.1", 405),
        ("CONNECT a:1 HTTP/1.1", 405),
        ("get / HTTP/1.1", 405),
        ("BREW / HTTP/1.1", 405),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.2", 400),
        ("GET / HTTP/2.0", 400),
        ("GET / http/1.1", 400),
        ("GET /", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("\r\nGET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("", 400),
    ] {
        assert_eq!(code(&format!("{line}\r\nHost: localhost\r\n\r\n")), want, "{line:?}");
    }
    assert_eq!(code("GET / HTTP/1.1\nHost: localhost\n\n"), 400);
    assert_eq!(code("GET / HTTP/1.1\r\nHost: localhost\r\n"), 400);
}

#[test]
fn only_known_hosts_are_answered() {
    for (host, want) in [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:65535", 200),
        ("[::1]:8080", 200),
        ("app.test:9", 200),
        ("evil.example", 421),
        ("localhost.evil", 421),
        ("127.0.0.2", 421),
        ("[::2]", 421),
        ("localhost.", 421),
        ("", 400),
        ("a, b", 400),
        ("a/b", 400),
        ("a:99999", 400),
        ("u@localhost", 400),
        ("localhost:", 400),
        ("localhost:+1", 400),
        ("[::1", 400),
        ("[::1]x", 400),
        ("[fe80::1%25lo]", 400),
        ("a:1:2", 400),
    ] {
        assert_eq!(code(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), want, "{host:?}");
    }
    assert_eq!(code("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(code("GET / HTTP/1.0\r\n\r\n"), 400);
}

#[test]
fn each_setting_opens_its_own_rule_only() {
    let open = FrontDoor { browser_origin: Choice::Allow, body_on_get: Choice::Allow, ..strict() };
    let closed = FrontDoor { forwarded_for: ForwardedFor::Refuse, ..strict() };
    for (lines, rules, want) in [
        ("Content-Length: 1\r\n", strict(), 400),
        ("Transfer-Encoding: chunked\r\n", strict(), 400),
        ("Content-Length: 0\r\n", strict(), 200),
        ("Content-Length: 1\r\n", open, 200),
        ("Origin: null\r\n", strict(), 403),
        ("Sec-Fetch-Site: cross-site\r\n", strict(), 403),
        ("Sec-Fetch-Site: same-site\r\n", strict(), 403),
        ("Sec-Fetch-Site: none\r\n", strict(), 200),
        ("Sec-Fetch-Site: same-origin\r\n", strict(), 200),
        ("Sec-Fetch-Mode: cors\r\n", strict(), 200),
        ("Origin: null\r\nSec-Fetch-Site: cross-site\r\n", open, 200),
        ("X-Forwarded-For: 1.2.3.4\r\n", strict(), 200),
        ("X-Forwarded-For: 1.2.3.4\r\n", closed, 400),
        ("Forwarded: for=x\r\n", closed, 400),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let got =
            judge(head.as_bytes(), &rules, &[], None).map_or_else(|r| r.status().as_u16(), |_| 200);
        assert_eq!(got, want, "{lines:?}");
    }
}

#[test]
fn heads_over_the_limits_are_too_large() {
    check_headers(&"X: y\r\n".repeat(99), 200);
    check_headers(&"X: y\r\n".repeat(100), 431);
    check_headers(&format!("X: {}\r\n", "y".repeat(40_000)), 431);
}

#[test]
fn what_stock_clients_send_passes() {
    for lines in [
        "User-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: 2000000\r\n\
         Content-Type: application/json\r\nExpect: 100-continue\r\n",
        "User-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
         Connection: keep-alive\r\nAuthorization: Bearer placeholder\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n\
         Upgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n",
        "connection: keep-alive\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\n\
         user-agent: node\r\naccept-encoding: gzip, deflate\r\n",
        "User-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\nAccept-Encoding: gzip\r\n",
    ] {
        check_headers(lines, 200);
    }
}

#[test]
fn a_request_id_is_taken_only_well_formed_and_alone() {
    let long = "a".repeat(129);
    for (lines, want) in [
        ("X-Request-Id: a.B_9-\r\n".to_owned(), Some("a.B_9-")),
        ("X-Request-Id: a b\r\n".to_owned(), None),
        ("X-Request-Id:\r\n".to_owned(), None),
        (format!("X-Request-Id: {long}\r\n"), None),
        ("X-Request-Id: a\r\nX-Request-Id: b\r\n".to_owned(), None),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let head = judge(head.as_bytes(), &strict(), &[], None).unwrap();
        assert_eq!(head.request_id.as_deref(), want, "{lines}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(head in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        drop(judge(&head, &strict(), &[], None));
    }

    #[test]
    fn what_passes_is_sent_as_judged_and_has_no_dot_segment(
        path in "/([a.;/%25]|%2e|%2E|%252e|%2f|%5c|%00|%25){0,8}"
    ) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if let Ok(head) = judge(head.as_bytes(), &strict(), &[], None) {
            proptest::prop_assert_eq!(head.target.raw().as_str(), &path);
            for segment in head.target.segments() {
                let flat = segment.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/");
                let dots = flat.split(['/', ';']).any(|part| part == "." || part == "..");
                proptest::prop_assert!(!dots, "{}", path);
            }
        }
    }
}

#[test]
fn the_header_that_names_the_tenant_is_sent_once_and_by_its_own_name() {
    let tenant = |lines: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let judged = judge(head.as_bytes(), &strict(), &[], Some("x-tenant"));
        judged.map(|head| head.tenant).map_err(|rejection| rejection.status().as_u16())
    };
    assert_eq!(tenant(""), Ok(None));
    assert_eq!(tenant("X-TENANT:  b \r\n"), Ok(Some(b"b".to_vec())));
    assert_eq!(tenant("X-Tenant:\r\n"), Ok(Some(Vec::new())));
    assert_eq!(tenant("X-Tenants: b\r\nTenant: c\r\n"), Ok(None));
    for twice in [
        "X-Tenant: b\r\nX-Tenant: b\r\n",
        "X-Tenant: b\r\nx-tenant: c\r\n",
        "X-Tenant:\r\nx-tenant: c\r\n",
        "X_Tenant: b\r\n",
        "X-Tenant: b\r\nX_Tenant: b\r\n",
    ] {
        assert_eq!(tenant(twice), Err(400), "{twice:?}");
    }
}
