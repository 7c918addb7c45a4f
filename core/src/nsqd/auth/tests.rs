//! Answers and patterns.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::grant::{Grant, judge};
use super::pattern::Patterns;
use super::*;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn rule(topic: &str, channels: &[&str], permissions: &[&str]) -> String {
    let list = |items: &[&str]| {
        let items: Vec<_> = items.iter().map(json::encode).collect();
        items.join(",")
    };
    let (channels, permissions) = (list(channels), list(permissions));
    let topic = json::encode(topic);
    alloc::format!(
        "{{\"topic\":{topic},\"channels\":[{channels}],\"permissions\":[{permissions}]}}"
    )
}

fn answer(rules: &[String]) -> String {
    alloc::format!("{{\"ttl\":60,\"authorizations\":[{}]}}", rules.join(","))
}

fn allows(rules: &[String], topic_name: &str, channel: &str) -> bool {
    let (_, allowed) = judge(answer(rules).as_bytes(), &[(topic(topic_name), channel)]).unwrap();
    allowed[0]
}

#[test]
fn answers_that_are_good() {
    let good = [
        (
            r#"{"ttl":1,"authorizations":[]}"#,
            r#"{"identity":"","identity_url":"","permission_count":0}"#,
        ),
        (
            r#"{"TTL":1,"Identity":"<i>","identity_URL":"u","x":[{}],"authorizations":null}"#,
            "{\"identity\":\"\\u003ci\\u003e\",\"identity_url\":\"u\",\"permission_count\":0}",
        ),
        (
            r#"{"ttl":9223372036854775807,"identity":null,"authorizations":[null,{"topic":"t","permissions":null}]}"#,
            r#"{"identity":"","identity_url":"","permission_count":2}"#,
        ),
        (
            r#" {"ttl":2,"ttl":1,"authorizations":[{"topic":"","channels":[null],"permissions":[]}]} "#,
            r#"{"identity":"","identity_url":"","permission_count":1}"#,
        ),
    ];
    for (body, json) in good {
        assert_eq!(
            judge(body.as_bytes(), &[]).map(|(json, _)| json).as_deref(),
            Ok(json),
            "{body}"
        );
    }
}

#[test]
fn answers_that_are_bad() {
    for body in [
        "",
        "null",
        "{}",
        "[]",
        "not JSON",
        "{} {}",
        r#"{"ttl":0}"#,
        r#"{"ttl":-1}"#,
        r#"{"ttl":"60"}"#,
        r#"{"ttl":1.5}"#,
        r#"{"ttl":60.0}"#,
        r#"{"ttl":9223372036854775808}"#,
        r#"{"ttl":60}x"#,
        r#"{"ttl":60,"identity":5}"#,
        r#"{"ttl":60,"authorizations":{}}"#,
        r#"{"ttl":60,"authorizations":[[]]}"#,
        r#"{"ttl":60,"authorizations":[{"topic":5}]}"#,
        r#"{"ttl":60,"authorizations":[{"channels":"c"}]}"#,
        r#"{"ttl":60,"authorizations":[{"channels":["("]}]}"#,
        r#"{"ttl":60,"authorizations":[{"topic":"("}]}"#,
        r#"{"ttl":60,"authorizations":[{"permissions":["own"]}]}"#,
        r#"{"ttl":60,"authorizations":[{"permissions":["Publish"]}]}"#,
        r#"{"ttl":60,"authorizations":[{"permissions":[null]}]}"#,
    ] {
        assert!(judge(body.as_bytes(), &[]).is_err(), "{body}");
    }
    let many = rule("t", &alloc::vec!["c"; ANSWER_PATTERNS_MAX], &[]);
    assert!(judge(answer(&[many]).as_bytes(), &[]).is_err());
    let many = rule("t", &alloc::vec!["c"; ANSWER_PATTERNS_MAX - 1], &[]);
    assert!(judge(answer(&[many]).as_bytes(), &[]).is_ok());
}

#[test]
fn both_patterns_and_the_permission_have_to_match() {
    let all = [rule(".*", &[".*"], &["subscribe", "publish"])];
    assert!(allows(&all, "t", "c") && allows(&all, "t", ""));
    // Unanchored, and nothing is matched by no pattern at all.
    let part = [rule("test", &["ch"], &["subscribe", "publish"])];
    assert!(allows(&part, "mytest2", "xchy"));
    assert!(!allows(&part, "tes", "ch") && !allows(&part, "test", "c"));
    assert!(!allows(&part, "test", ""));
    for (channels, may_publish) in
        [(&[""][..], true), (&["^$"], true), (&[".*"], true), (&["ch"], false), (&[], false)]
    {
        assert_eq!(allows(&[rule("t", channels, &["publish"])], "t", ""), may_publish);
    }
    // The parts of two entries do not add up.
    let (read, write) = (rule("a", &["c"], &["subscribe"]), rule("b", &[""], &["publish"]));
    let rules = [read, write];
    assert!(allows(&rules, "a", "c") && allows(&rules, "b", ""));
    assert!(!allows(&rules, "a", "") && !allows(&rules, "b", "c"));
    assert!(!allows(&[rule("t", &[".*"], &[])], "t", "c"));
}

#[test]
fn what_is_remembered_of_one_topic_holds_for_no_other() {
    let mut patterns = Patterns::default();
    let body = answer(&[rule("^a$", &[""], &["publish"])]);
    let mut grant = Grant::parse(body.as_bytes(), Instant::ZERO, &mut patterns).unwrap();
    for _ in 0..2 {
        assert!(grant.allows(&topic("a"), "", &mut patterns));
        assert!(!grant.allows(&topic("b"), "", &mut patterns));
        assert!(!grant.allows(&topic("a"), "c", &mut patterns));
    }
}

#[test]
fn a_shard_forgets_patterns_and_connections_keep_theirs() {
    let mut patterns = Patterns::default();
    let first = patterns.compile("^kept$").unwrap();
    for n in 0..3 * PATTERNS_MAX {
        patterns.compile(&alloc::format!("p{n}")).unwrap();
        assert!(!patterns.is_match(&first, "other"));
    }
    assert!(patterns.is_match(&first, "kept"));
}

/// Probed with Go's own library: pattern, what it matches, what it does not.
#[test]
fn patterns_are_gos() {
    let good: [(&str, &[&str], &[&str]); 29] = [
        ("", &["", "a"], &[]),
        ("^$", &[""], &["a"]),
        ("^a.c$", &["abc", "a.c"], &["ac", "abbc"]),
        ("^(a|b)+$", &["ab"], &["", "c"]),
        ("^(?i)AB$", &["ab", "aB"], &["a"]),
        ("^(?i:a)b$", &["Ab"], &["AB"]),
        ("(?P<n>a)(?<m>b)", &["ab"], &["a"]),
        (r"^\d\w\.\-$", &["1a.-"], &["aa.-"]),
        (r"^\D\W\S$", &["a-b"], &["1-b", "aab"]),
        (r"\bb\b", &["a-b", "b"], &["ab"]),
        (r"a\Bb", &["ab"], &["a-b"]),
        (r"\Aa\z", &["a"], &["ab"]),
        ("^a{2}$", &["aa"], &["a", "aaa"]),
        ("^a{2,}$", &["aa", "aaa"], &["a"]),
        ("^a{1,2}?$", &["a", "aa"], &["aaa"]),
        ("^a{1000}$", &[], &["a"]),
        ("[a-c][^a-c]", &["ad"], &["ab"]),
        ("^[]a]$", &["a"], &["b"]),
        ("^[^]a]$", &["b"], &["a"]),
        ("^[[:alpha:][:digit:]]$", &["a", "1"], &["-"]),
        ("^[[:^alpha:]]$", &["1"], &["a"]),
        ("^[a-]$", &["a", "-"], &["b"]),
        ("^[a-b-c]$", &["a", "b", "-", "c"], &["d"]),
        (r"^[\d_\-\]]$", &["1", "_", "-"], &["a"]),
        (r"^[\D]$", &["a"], &["1"]),
        (r"^\x61\x{62}c$", &["abc"], &["ab"]),
        (r"^a\_b$", &["a_b"], &["ab"]),
        ("^é$|^a$", &["a"], &["", "ab"]),
        ("^a#b c$", &[], &["a"]),
    ];
    let mut patterns = Patterns::default();
    for (pattern, matched, others) in good {
        let compiled = patterns.compile(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
        for name in matched {
            assert!(patterns.is_match(&compiled, name), "{pattern} matches {name}");
        }
        for name in others {
            assert!(!patterns.is_match(&compiled, name), "{pattern} does not match {name}");
        }
    }
    for pattern in [
        "(",
        ")",
        "(a",
        "a)",
        "[",
        "[a",
        "[]",
        "[^]",
        "*",
        "a**",
        "a*+",
        "a???",
        "a{2}{3}",
        "a{1}*",
        "|*",
        "(*)",
        "a{1001}",
        "a{2,1}",
        "a{1,1001}",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?x)a",
        "(?u)a",
        "(?R)a",
        "(?P<>a)",
        "(?P<a-b>a)",
        "(?P=n)",
        "(?#c)",
        "(?",
        "(?i",
        r"\",
        r"\1",
        r"\8",
        r"\C",
        r"\Z",
        r"\_a\e",
        r"\xg0",
        r"\x1",
        r"\x{}",
        r"\x{110000}",
        r"\x{1",
        r"\p",
        r"\pX",
        r"\p{Bogus}",
        r"\p{}",
        r"\p{L",
        "[b-a]",
        "[a-",
        r"[\b]",
        r"[\A]",
        "[[:bogus:]]",
        "[[:^^alpha:]]",
        "((a{100}){100}){100}",
        // Go has these, or reads them otherwise; here they are refused.
        r"\Qa.b\E",
        r"\143",
        r"\pL",
        r"\p{Latin}",
        "a{",
        "{a}",
        "a{,2}",
        "a{01}",
        "a{ 1}",
        "[[a]",
        "[[a]b]",
        "[a&&b]",
        "[a--b]",
        "[a~~b]",
        "[à-ü]",
        r"a\<",
        r"\b{start}a",
        r"\u0061",
        "(?P<a.b>a)",
    ] {
        assert!(patterns.compile(pattern).is_err(), "{pattern}");
    }
}

/// Patterns of a few letters, with what they mean told by a matcher that tries everything.
#[derive(Clone, Debug)]
enum Naive {
    Empty,
    Char(char),
    Any,
    Class(bool, Vec<char>),
    Start,
    End,
    Both(Box<[Self; 2]>),
    Either(Box<[Self; 2]>),
    Repeat(Box<Self>, usize, Option<usize>),
}

impl Naive {
    fn pattern(&self) -> String {
        match self {
            Self::Empty => "(?:)".into(),
            Self::Char(c) => c.to_string(),
            Self::Any => ".".into(),
            Self::Class(negated, chars) => {
                let caret = if *negated { "^" } else { "" };
                alloc::format!("[{caret}{}]", chars.iter().collect::<String>())
            }
            Self::Start => "^".into(),
            Self::End => "$".into(),
            Self::Both(both) => alloc::format!("{}{}", both[0].pattern(), both[1].pattern()),
            Self::Either(both) => alloc::format!("({}|{})", both[0].pattern(), both[1].pattern()),
            Self::Repeat(one, min, max) => match (min, max) {
                (0, None) => alloc::format!("(?:{})*", one.pattern()),
                (1, None) => alloc::format!("({})+", one.pattern()),
                (min, None) => alloc::format!("({}){{{min},}}", one.pattern()),
                (min, Some(max)) => alloc::format!("({}){{{min},{max}}}", one.pattern()),
            },
        }
    }

    /// Where a match that begins at `at` may end.
    fn ends(&self, text: &[char], at: usize) -> BTreeSet<usize> {
        let one = |is_so: bool| is_so.then_some(at + 1).into_iter().collect();
        let here = |is_so: bool| is_so.then_some(at).into_iter().collect();
        match self {
            Self::Empty => here(true),
            Self::Char(c) => one(text.get(at) == Some(c)),
            Self::Any => one(at < text.len()),
            Self::Class(negated, chars) => {
                one(text.get(at).is_some_and(|c| chars.contains(c) != *negated))
            }
            Self::Start => here(at == 0),
            Self::End => here(at == text.len()),
            Self::Both(both) => {
                let first = both[0].ends(text, at);
                first.into_iter().flat_map(|end| both[1].ends(text, end)).collect()
            }
            Self::Either(both) => both.iter().flat_map(|one| one.ends(text, at)).collect(),
            Self::Repeat(one, min, max) => {
                let (mut now, mut all) = (here(true), BTreeSet::new());
                for count in 0..=max.unwrap_or(min + text.len() + 1) {
                    if count >= *min {
                        all.extend(now.iter().copied());
                    }
                    now = now.into_iter().flat_map(|end| one.ends(text, end)).collect();
                }
                all
            }
        }
    }
}

fn naive() -> impl Strategy<Value = Naive> {
    let letter = || prop::sample::select(alloc::vec!['a', 'b', '1']);
    let leaf = prop_oneof![
        Just(Naive::Empty),
        letter().prop_map(Naive::Char),
        Just(Naive::Any),
        (any::<bool>(), prop::collection::vec(letter(), 1..3))
            .prop_map(|(negated, chars)| Naive::Class(negated, chars)),
        Just(Naive::Start),
        Just(Naive::End),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| Naive::Both([a, b].into())),
            two.prop_map(|(a, b)| Naive::Either([a, b].into())),
            (inner, 0_usize..3, prop::option::of(0_usize..3)).prop_map(|(one, min, more)| {
                Naive::Repeat(one.into(), min, more.map(|more| min + more))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn patterns_match_what_they_say(
        (topics, channels) in (naive(), prop::collection::vec(naive(), 0..3)),
        (topic_name, channel) in ("[ab1]{1,5}", "[ab1]{0,5}"),
        (subscribe, publish) in any::<(bool, bool)>(),
    ) {
        let matches = |pattern: &Naive, name: &str| {
            let text: Vec<char> = name.chars().collect();
            (0..=text.len()).any(|at| !pattern.ends(&text, at).is_empty())
        };
        let permitted = if channel.is_empty() { publish } else { subscribe };
        let expected = permitted
            && matches(&topics, &topic_name)
            && channels.iter().any(|pattern| matches(pattern, &channel));
        let mut permissions = Vec::new();
        permissions.extend(subscribe.then_some("subscribe"));
        permissions.extend(publish.then_some("publish"));
        let channels: Vec<_> = channels.iter().map(Naive::pattern).collect();
        let channels: Vec<_> = channels.iter().map(String::as_str).collect();
        let rules = [rule(&topics.pattern(), &channels, &permissions)];
        prop_assert_eq!(allows(&rules, &topic_name, &channel), expected, "{:?}", rules);
    }

    #[test]
    fn any_text_is_judged(pattern in "[\\\\(){}\\[\\]*+?|^$.,:<>=!#&~PpQExbdiUs0-9é -]{0,20}") {
        let _ = Patterns::default().compile(&pattern);
    }
}
