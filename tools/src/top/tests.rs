use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cluster::{NodeStats, StatsResult};

fn node(topics: &str) -> StatsResult {
    let text = format!(r#"{{"version":"1.3.0","health":"OK","topics":[{topics}]}}"#);
    Ok(serde_json::from_str(&text).expect("it is JSON"))
}

fn snapshot(at: Instant, nodes: Vec<(&str, StatsResult)>) -> Snapshot {
    let nodes = nodes.into_iter().map(|(address, node)| (address.to_owned(), node)).collect();
    Snapshot { at, nodes, lookup_error: None }
}

/// Two rounds, two seconds apart, of two nsqds that answer and one that does not.
fn rounds() -> [Snapshot; 2] {
    let dead = || ("c:4151", Err("connection refused".to_owned()));
    let start = Instant::now();
    let before = snapshot(
        start,
        vec![
            (
                "a:4151",
                node(
                    r#"{"topic_name":"orders","message_count":100,"depth":0,"channels":[
                        {"channel_name":"mail","message_count":100,"depth":20,"in_flight_count":5}]}"#,
                ),
            ),
            ("b:4151", node(r#"{"topic_name":"orders","message_count":900,"channels":[]}"#)),
            dead(),
        ],
    );
    let now = snapshot(
        start + Duration::from_secs(2),
        vec![
            (
                "a:4151",
                node(
                    r#"{"topic_name":"orders","message_count":300,"depth":1,"backend_depth":1,"channels":[
                        {"channel_name":"mail","message_count":300,"depth":40,"backend_depth":30,
                         "in_flight_count":4,"deferred_count":3,"requeue_count":2,"timeout_count":1,
                         "client_count":2},
                        {"channel_name":"audit#ephemeral","message_count":50,"paused":true}]},
                       {"topic_name":"clicks","message_count":7,"depth":7,"channels":[]}"#,
                ),
            ),
            // It was restarted meanwhile.
            ("b:4151", node(r#"{"topic_name":"orders","message_count":3,"channels":null}"#)),
            dead(),
        ],
    );
    [before, now]
}

fn model(subject: Subject) -> Model {
    let mut model = Model::new(subject, 0, false, String::new());
    rounds().into_iter().for_each(|round| model.update(round));
    model
}

fn text(model: &Model) -> String {
    model.table().expect("a round is in").to_string()
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Step {
    let mut step = Step::Draw;
    for key in keys {
        step = model.handle_key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    step
}

fn type_text(model: &mut Model, text: &str) {
    text.chars().for_each(|char| {
        press(model, &[KeyCode::Char(char)]);
    });
}

/// What the terminal shows, line by line, without the blanks at the ends.
fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is memory");
    terminal.draw(|frame| view::draw(model, frame)).expect("it is memory");
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    cells
        .chunks(usize::from(width).max(1))
        .map(|line| line.concat().trim_end().to_owned())
        .collect()
}

#[test]
fn topics_are_summed_over_nsqds_and_rates_over_those_known_before() {
    assert_eq!(
        text(&model(Subject::Topics)),
        "TOPIC   NSQDS  CHANNELS  IN/S  OUT/S  DEPTH  DISK  IN FLIGHT  DEFERRED  REQUEUED  TIMED OUT  CLIENTS\n\
         clicks      1         0     -      -      7     0          0         0         0          0        0\n\
         orders      2         2   100   89.0     41    31          4         3         2          1        2\n"
    );
}

#[test]
fn channels_and_their_rates() {
    assert_eq!(
        text(&model(Subject::Channels(None))),
        "CHANNEL                   TOPIC   NSQDS  IN/S  OUT/S  DEPTH  DISK  IN FLIGHT  DEFERRED  REQUEUED  TIMED OUT  CLIENTS\n\
         audit#ephemeral (paused)  orders      1     -      -      0     0          0         0         0          0        0\n\
         mail                      orders      1   100   89.0     40    30          4         3         2          1        2\n"
    );
    assert_eq!(text(&model(Subject::Channels(Some("clicks".into())))).lines().count(), 1);
}

#[test]
fn an_nsqd_without_an_answer_is_shown_as_such() {
    let text = text(&model(Subject::Nodes));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with("a:4151  OK "), "{text}");
    assert!(lines[3].starts_with("c:4151  no answer: connection refused "), "{text}");
    assert!(lines[3].ends_with("  -        -"), "{text}");
}

#[test]
fn before_the_second_round_there_are_no_rates() {
    let [first, _] = rounds();
    let mut model = Model::new(Subject::Topics, 0, false, String::new());
    assert!(model.table().is_none());
    model.update(first);
    let text = text(&model);
    assert!(text.lines().nth(1).is_some_and(|line| line.contains("  -  ")), "{text}");
}

#[test]
fn keys_sort_and_the_selection_stays_with_its_row() {
    let mut model = model(Subject::Topics);
    let names = |model: &Model| -> Vec<String> {
        text(model).lines().skip(1).map(|line| line[..6].to_owned()).collect()
    };
    assert_eq!(
        (names(&model), model.selected_index()),
        (vec!["clicks".into(), "orders".into()], Some(0))
    );
    press(&mut model, &[KeyCode::Down, KeyCode::Down]);
    assert_eq!(model.selected_index(), Some(1));
    // By the number of nsqds, most first.
    press(&mut model, &[KeyCode::Right]);
    assert_eq!(names(&model), ["orders", "clicks"]);
    assert_eq!((model.selected_index(), model.sorting()), (Some(0), (1, false)));
    press(&mut model, &[KeyCode::Char('r')]);
    assert_eq!((names(&model)[0].as_str(), model.sorting()), ("clicks", (1, true)));
    press(&mut model, &[KeyCode::Left, KeyCode::Left]);
    assert_eq!(model.sorting(), (0, false));
    for _ in 0..100 {
        press(&mut model, &[KeyCode::Right]);
    }
    assert_eq!(model.sorting(), (11, false));
}

#[test]
fn from_a_topic_to_its_clients_and_back() {
    let mut model = model(Subject::Topics);
    assert_eq!(press(&mut model, &[KeyCode::End, KeyCode::Enter]), Step::Draw);
    assert_eq!(*model.subject(), Subject::Channels(Some("orders".into())));
    assert_eq!(model.focus(), None);
    assert_eq!(press(&mut model, &[KeyCode::End, KeyCode::Enter]), Step::Ask);
    assert_eq!(model.focus(), Some(("orders".into(), "mail".into())));
    let mut stats = NodeStats::default();
    stats.clients = serde_json::from_str(
        r#"[{"hostname":"web1","client_id":"w","remote_address":"10.0.0.7:5555","ready_count":9,
             "user_agent":"evil\u001b[2J","auth_identity":"x"}]"#,
    )
    .unwrap();
    model.update(snapshot(Instant::now(), vec![("a:4151", Ok(stats))]));
    let text = text(&model);
    assert!(text.contains("web1    10.0.0.7:5555  a:4151    9"), "{text}");
    assert!(text.ends_with("evil\u{fffd}[2J\n"), "what a client says cannot steer the terminal");
    // Nothing lies below; Esc goes back, with the row selected that one came from.
    assert_eq!(press(&mut model, &[KeyCode::Enter]), Step::Draw);
    assert_eq!(press(&mut model, &[KeyCode::Esc]), Step::Ask);
    assert_eq!(*model.subject(), Subject::Channels(Some("orders".into())));
    press(&mut model, &[KeyCode::Esc, KeyCode::Esc]);
    assert_eq!(*model.subject(), Subject::Topics);
}

#[test]
fn a_filter_is_typed_kept_and_taken_away() {
    let mut model = model(Subject::Topics);
    press(&mut model, &[KeyCode::Char('/')]);
    type_text(&mut model, "ORDq");
    assert_eq!(text(&model).lines().count(), 1);
    press(&mut model, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(model.filter(), ("ORD", false));
    assert_eq!((text(&model).lines().count(), model.selected_index()), (2, Some(0)));
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!((text(&model).lines().count(), model.filter()), (3, ("", false)));
    press(&mut model, &[KeyCode::Char('/')]);
    type_text(&mut model, &"x".repeat(1000));
    assert_eq!(model.filter().0.len(), 100);
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.filter(), ("", false));
}

#[test]
fn the_views_and_the_end() {
    let mut model = model(Subject::Topics);
    for (key, subject) in [
        (KeyCode::Tab, Subject::Channels(None)),
        (KeyCode::Tab, Subject::Nodes),
        (KeyCode::Tab, Subject::Topics),
        (KeyCode::Char('3'), Subject::Nodes),
        (KeyCode::Char('2'), Subject::Channels(None)),
        (KeyCode::Char('1'), Subject::Topics),
    ] {
        press(&mut model, &[key]);
        assert_eq!(*model.subject(), subject);
    }
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Step::Quit);
    press(&mut model, &[KeyCode::Char('/')]);
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Step::Draw);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.handle_key(control_c), Step::Quit);
}

#[test]
fn the_screen() {
    let mut model = model(Subject::Topics);
    let lines = screen(&mut model, 110, 8);
    assert_eq!(lines[0], "sansq top: topics");
    assert_eq!(lines[1], "3 nsqds, 1 without an answer");
    assert!(lines[2].starts_with("TOPIC*   NSQDS"), "{lines:?}");
    assert!(lines[4].starts_with("orders"), "{lines:?}");
    assert_eq!(lines[7], "2 rows   1 topics 2 channels 3 nsqds   ? help   q quit");
    press(&mut model, &[KeyCode::Char('?')]);
    assert!(screen(&mut model, 80, 24).iter().any(|line| line.contains("a topic's channels")));
    press(&mut model, &[KeyCode::Char('x')]);
    assert!(!screen(&mut model, 80, 24).iter().any(|line| line.contains("a topic's channels")));
    // Terminals that are too small for anything.
    press(&mut model, &[KeyCode::Char('?')]);
    for (width, height) in [(0, 0), (1, 1), (5, 2), (80, 3)] {
        screen(&mut model, width, height);
    }
}

#[test]
fn the_selected_row_is_on_the_screen() {
    let names = (0..50).map(|number| format!(r#"{{"topic_name":"t{number:02}"}}"#));
    let topics = names.collect::<Vec<_>>().join(",");
    let mut model = Model::new(Subject::Topics, 0, false, String::new());
    model.update(snapshot(Instant::now(), vec![("a:4151", node(&topics))]));
    assert!(screen(&mut model, 60, 14)[3].starts_with("t00"));
    press(&mut model, &[KeyCode::PageDown, KeyCode::PageDown]);
    let lines = screen(&mut model, 60, 14);
    assert!(lines[12].starts_with("t20"), "{lines:?}");
    press(&mut model, &[KeyCode::End]);
    assert!(screen(&mut model, 60, 14)[12].starts_with("t49"));
}

#[test]
fn columns_are_named_by_a_part() {
    let sort = |name| sorted_by(&Subject::Topics, Some(name)).map_err(|error| error.to_string());
    assert_eq!((sort("depth"), sort("In/"), sort("timed")), (Ok(5), Ok(3), Ok(10)));
    assert!(
        sort("x").is_err_and(|text| text.starts_with("there is no column x; there are TOPIC,"))
    );
}

#[test]
fn nothing_answers() {
    let dead = snapshot(Instant::now(), vec![("c:4151", Err("refused".into()))]);
    assert_eq!(dead.failure().as_deref(), Some("nsqd at c:4151: refused"));
    let empty = Snapshot { at: Instant::now(), nodes: BTreeMap::new(), lookup_error: None };
    assert_eq!(empty.failure().as_deref(), Some("there is no nsqd"));
    let mut model = Model::new(Subject::Topics, 0, false, String::new());
    assert!(screen(&mut model, 40, 5)[2].starts_with("asking"));
    model.update(dead);
    press(&mut model, &[KeyCode::Down, KeyCode::Enter, KeyCode::End]);
    assert!(screen(&mut model, 40, 5)[1].starts_with("1 nsqds, 1 without"));
}
