//! Handlers that are real processes: what they do, and what is made of it.

use super::*;
use crate::queue::event::{EventKey, raw};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A time limit that is to be reached.
const SHORT: Duration = Duration::from_millis(300);

/// The functions `id LINE`, `done LINE` for handlers in the shell.
const WORDS: &str = r#"id() { printf '%s' "$1" | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/'; }
done_() { printf '{"id":"%s","status":"done"}\n' "$(id "$1")"; }
"#;

/// A handler that runs in a folder of its own.
struct Trial {
    running: Option<Running>,
    reports: Receiver<Report>,
    folder: tempfile::TempDir,
}

impl Trial {
    fn start(handler: &Handler, timeout: Duration) -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let (sender, reports) = channel();
        let conditions = Conditions {
            portal: "acme.bitrix24.com".to_owned(),
            timeout,
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            folder: folder.path().to_owned(),
            redactor: crate::secret::Redactor::default(),
            screen: Screen::Stream,
        };
        let running = Running::start(handler, conditions, Arc::new(move |report| drop(sender.send(report)))).unwrap();
        Trial { running, reports, folder }
    }

    fn exec(command: &str, timeout: Duration) -> Trial {
        Trial::start(&Handler::Exec(command.to_owned()), timeout)
    }

    fn serve(command: &str, timeout: Duration) -> Trial {
        Trial::start(&Handler::Serve(format!("{WORDS}{command}")), timeout)
    }

    /// Hands events over, each with so many bytes of data.
    fn submit(&self, seqs: std::ops::Range<u64>, bytes: usize) {
        seqs.for_each(|seq| self.running.as_ref().unwrap().submit(&job(seq, bytes)));
    }

    /// Returns the endings of so many events, and how often something else was
    /// reported.
    fn endings(&self, count: usize) -> (BTreeMap<u64, Ending>, usize) {
        let (mut endings, mut others) = (BTreeMap::new(), 0);
        while endings.len() < count {
            match self.reports.recv_timeout(PATIENCE).expect("a report") {
                Report::Ended(seq, ending) => assert_eq!(endings.insert(seq, ending), None, "{seq} ended twice"),
                Report::Noise | Report::Unusable(_) => others += 1,
            }
        }
        (endings, others)
    }

    fn one(&self, bytes: usize) -> Ending {
        self.submit(0..1, bytes);
        self.endings(1).0.remove(&0).unwrap()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn job(seq: u64, bytes: usize) -> Job {
    Job {
        seq,
        key: EventKey::of(&seq.to_string()),
        name: "ONCRMDEALUPDATE".to_owned(),
        entity: format!("crmdeal:{seq}"),
        attempt: 1,
        interrupted: 0,
        received_ms: 0,
        source: "offline",
        payload: raw(&json!({"EVENT_DATA": {"FIELDS": {"ID": seq.to_string()}}, "FILL": "x".repeat(bytes)})),
    }
}

fn failed(ending: &Ending) -> (&'static str, &str) {
    match ending {
        Ending::Failed(reason, text) => (reason, text),
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition, without a fixed time.
#[expect(clippy::disallowed_methods, reason = "processes of others are waited for")]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Returns whether the process whose number stands in a file has ended. A
/// zombie has.
fn has_ended(file: &Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
}

#[test]
fn the_exit_status_is_the_verdict() {
    assert_eq!(Trial::exec("exit 0", PATIENCE).one(0), Ending::Done);
    assert_eq!(Trial::exec("exit 75", PATIENCE).one(0), Ending::Later);
    let ending = Trial::exec("echo the reason >&2; exit 1", PATIENCE).one(0);
    assert_eq!(failed(&ending), ("handler_failed", "exit status 1: the reason"));
    let ending = Trial::exec("kill -9 $$", PATIENCE).one(0);
    assert_eq!(failed(&ending), ("handler_crashed", "killed by signal 9"));
}

#[test]
fn a_command_that_cannot_be_run_is_neither_a_success_nor_put_off() {
    for command in ["exit 126", "no-such-command-anywhere", "/"] {
        let ending = Trial::exec(command, PATIENCE).one(0);
        assert!(!matches!(ending, Ending::Done | Ending::Later | Ending::Suspect), "{command}: {ending:?}");
    }
}

#[test]
fn a_handler_that_takes_too_long_is_ended_with_all_it_started() {
    let trial = Trial::exec("sleep 300 & echo $! > child; wait", SHORT);
    assert_eq!(failed(&trial.one(0)).0, "timeout");
    until("the child has ended", || has_ended(&trial.file("child")));
}

#[test]
fn what_does_not_want_to_end_is_killed_also_behind_its_parent() {
    let trial = Trial::exec("(trap '' TERM; sleep 300) & echo $! > child; wait", SHORT);
    assert_eq!(failed(&trial.one(0)).0, "timeout");
    until("the child has ended", || has_ended(&trial.file("child")));
}

#[test]
fn a_handler_need_not_read_its_event() {
    assert_eq!(Trial::exec("exit 0", PATIENCE).one(4_000_000), Ending::Done);
}

#[test]
fn an_event_longer_than_a_pipe_comes_whole() {
    let trial = Trial::exec("wc -c > length", PATIENCE);
    assert_eq!(trial.one(4_000_000), Ending::Done);
    let length = std::fs::read_to_string(trial.file("length")).unwrap();
    assert_eq!(length.trim(), (job(0, 4_000_000).to_line("acme.bitrix24.com").len() + 1).to_string());
}

#[test]
fn what_a_handler_leaves_running_holds_nothing_up() {
    let trial = Trial::exec("(while [ ! -e stop ]; do sleep 0.02; done) & echo $! > child", PATIENCE);
    assert_eq!(trial.one(0), Ending::Done);
    assert!(!has_ended(&trial.file("child")));
    std::fs::write(trial.file("stop"), "").unwrap();
    until("the child has ended", || has_ended(&trial.file("child")));
}

#[test]
fn answers_come_in_any_order() {
    let trial = Trial::serve("read -r a; read -r b; read -r c; done_ \"$c\"; done_ \"$a\"; done_ \"$b\"; cat > /dev/null", PATIENCE);
    trial.submit(0..3, 0);
    assert!(trial.endings(3).0.values().all(|ending| *ending == Ending::Done));
}

#[test]
fn every_status_is_understood() {
    let answer = r#"while read -r line; do n=$((n+1)); case $n in
        1) rest='"done"' ;; 2) rest='"later"' ;; 3) rest='"failed","error":"no room"' ;; 4) rest='"failed"' ;; *) rest='"finished"' ;;
        esac; printf '{"id":"%s","status":%s}\n' "$(id "$line")" "$rest"; done"#;
    let trial = Trial::serve(answer, PATIENCE);
    trial.submit(0..5, 0);
    let endings = trial.endings(5).0;
    assert_eq!((&endings[&0], &endings[&1]), (&Ending::Done, &Ending::Later));
    assert_eq!(failed(&endings[&2]), ("handler_failed", "no room"));
    assert_eq!(failed(&endings[&3]).0, "handler_failed");
    assert!(failed(&endings[&4]).1.contains("finished"));
}

#[test]
fn lines_that_are_no_answers_do_no_harm() {
    let noise = r#"printf 'starting\n\n\377\376\000\n[1]\n{"id":"ffff","status":"done"}\n'"#;
    let trial = Trial::serve(&format!("{noise}; while read -r line; do {noise}; done_ \"$line\"; done"), PATIENCE);
    trial.submit(0..2, 0);
    let (endings, others) = trial.endings(2);
    assert!(endings.values().all(|ending| *ending == Ending::Done));
    assert!(others >= 3, "{others}");
}

#[test]
fn a_crash_with_one_event_is_that_events_failure_and_the_next_one_is_handled() {
    let trial =
        Trial::serve("read -r line; [ -e second ] || { touch second; echo why >&2; exit 7; }; done_ \"$line\"; cat > /dev/null", PATIENCE);
    let ending = trial.one(0);
    let (reason, text) = failed(&ending);
    assert!(reason == "handler_crashed" && text.contains('7') && text.contains("why"), "{text}");
    trial.submit(1..2, 0);
    assert_eq!(trial.endings(1).0[&1], Ending::Done);
}

#[test]
fn a_crash_with_several_events_makes_all_of_them_suspects() {
    let trial = Trial::serve("read -r a; read -r b; read -r c; done_ \"$b\"; kill -9 $$", PATIENCE);
    trial.submit(0..3, 0);
    let endings = trial.endings(3).0;
    assert_eq!((&endings[&0], &endings[&1], &endings[&2]), (&Ending::Suspect, &Ending::Done, &Ending::Suspect));
}

#[test]
fn a_crash_leaves_nothing_of_the_handler_behind() {
    let trial = Trial::serve("sleep 300 & echo $! > child; read -r line; exit 7", PATIENCE);
    assert_eq!(failed(&trial.one(0)).0, "handler_crashed");
    until("the child has ended", || has_ended(&trial.file("child")));
}

#[test]
fn an_answer_that_does_not_come_is_a_failure() {
    let trial = Trial::serve("sleep 300 & echo $! > child; cat > /dev/null", SHORT);
    assert_eq!(failed(&trial.one(0)).0, "timeout");
    until("the child has ended", || has_ended(&trial.file("child")));
}

#[test]
fn a_handler_that_does_not_read_has_taken_too_long() {
    assert_eq!(failed(&Trial::serve("sleep 300", SHORT).one(4_000_000)).0, "timeout");
}

#[test]
fn a_handler_that_ends_at_once_is_given_up_after_three_events() {
    let trial = Trial::serve("exit 3", PATIENCE);
    let mut seen = Vec::new();
    let mut unusable = 0;
    trial.submit(0..1, 0);
    // One at a time, so that each is alone in the hands of a process.
    while seen.len() < 3 {
        match trial.reports.recv_timeout(PATIENCE).unwrap() {
            Report::Ended(seq, ending) => {
                seen.push(ending);
                trial.submit(seq + 1..seq + 2, 0);
            }
            Report::Noise | Report::Unusable(_) => unusable += 1,
        }
    }
    assert_eq!((failed(&seen[0]).0, failed(&seen[1]).0, &seen[2]), ("handler_crashed", "handler_crashed", &Ending::Interrupted));
    // What comes later goes back untried, and so at once.
    trial.submit(10..200, 0);
    let (endings, others) = trial.endings(191);
    assert!(endings.values().all(|ending| *ending == Ending::Interrupted));
    assert_eq!(unusable + others, 1);
}

#[test]
fn much_in_both_directions_does_not_stand_still() {
    let fill = "y".repeat(20_000);
    let trial =
        Trial::serve(&format!(r#"exec sed -u 's/.*"id":"\([0-9a-f]*\)".*/{{"id":"\1","status":"done","fill":"{fill}"}}/'"#), PATIENCE);
    trial.submit(0..60, 100_000);
    assert!(trial.endings(60).0.values().all(|ending| *ending == Ending::Done));
}

#[test]
fn a_handler_may_finish_what_it_does_when_there_is_no_more() {
    let mut trial = Trial::serve("while read -r line; do done_ \"$line\"; done; echo bye > end", PATIENCE);
    assert_eq!(trial.one(0), Ending::Done);
    drop(trial.running.take());
    assert_eq!(std::fs::read_to_string(trial.file("end")).unwrap(), "bye\n");
}

#[test]
fn a_line_without_an_end_ends_the_handler_and_is_not_kept() {
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x";
    let trial = Trial::serve(
        &format!("read -r line; [ -e second ] || {{ touch second; {flood}; sleep 300; }}; done_ \"$line\"; cat > /dev/null"),
        PATIENCE,
    );
    let ending = trial.one(0);
    let (reason, text) = failed(&ending);
    assert!(reason == "handler_crashed" && text.contains("a line of more than 1048576 bytes"), "{text}");
    trial.submit(1..2, 0);
    assert_eq!(trial.endings(1).0[&1], Ending::Done);
}

#[test]
fn a_flood_of_noise_is_told_a_few_times_and_holds_no_answer_up() {
    let trial = Trial::serve("yes noise | head -n 200000; while read -r line; do done_ \"$line\"; done", PATIENCE);
    trial.submit(0..2, 0);
    let (endings, others) = trial.endings(2);
    assert!(endings.values().all(|ending| *ending == Ending::Done));
    assert!((1..=10).contains(&others), "{others}");
}

#[test]
fn what_a_handler_left_running_and_that_writes_for_ever_holds_nothing_up() {
    let trial = Trial::serve("read -r line; done_ \"$line\"; yes & echo $! > child; exit 3", PATIENCE);
    assert_eq!(trial.one(0), Ending::Done);
    trial.submit(1..2, 0);
    let _ = trial.endings(1);
    drop(trial.running);
    until("the child has ended", || has_ended(&trial.folder.path().join("child")));
}

#[test]
fn a_long_reason_is_cut() {
    let answer = r#"read -r line; printf '{"id":"%s","status":"failed","error":"' "$(id "$line")"; head -c 500000 /dev/zero | tr '\0' e; printf '"}\n'; cat > /dev/null"#;
    let ending = Trial::serve(answer, PATIENCE).one(0);
    let text = failed(&ending).1;
    assert!(text.len() < 5000 && text.ends_with("… 495904 more bytes"), "{} {}", text.len(), &text[text.len() - 40..]);
}

#[test]
fn a_process_that_floods_both_of_its_outputs_is_read_and_forgotten() {
    let trial = Trial::exec("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo >&2; echo why >&2; exit 1", PATIENCE);
    let ending = trial.one(0);
    let text = failed(&ending).1;
    assert!(text.ends_with("why") && text.len() < 5000, "{}", text.len());
}

#[test]
fn a_handler_that_floods_and_does_not_read_has_taken_too_long() {
    assert_eq!(failed(&Trial::serve("exec yes", SHORT).one(4_000_000)).0, "timeout");
}
