//! `--curl`: what it prints does in a shell what b24 would do.

use crate::world::{Outcome, World};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// A shell in which `curl` writes down what it is given.
const NOTE: &str = "curl() { for word do printf '%s\\0' \"$word\"; done; }\n";

/// What a shell makes of a line.
fn words(world: &World, line: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{NOTE}{line}")]).env_clear().envs(variables.iter().copied()).current_dir(world.home.path());
    let output = shell.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// Sends JSON as a program would that is given these words.
fn post(url: &str, data: &str) -> String {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = data.len();
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{data}"
    )
    .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn hostile() -> Value {
    json!({"fields": {
        "TITLE": "it's'; touch pwned; echo '",
        "COMMENTS": "$(touch pwned) `touch pwned` $HOME ${HOME} \\ \\' \" ! !! \n\r\t # & | > pwned",
        "NAME": "\u{85}\u{2028}\u{202e}\u{3164}\u{7f}é漢🙂",
        "'\"$(touch pwned)": "@/etc/passwd",
        "LAST_NAME": "'\\''",
    }})
}

#[test]
fn a_shell_sends_what_was_shown() {
    let world = World::new();
    let webhook = world.webhook(1);
    let code = webhook.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    let token = world.emulator.access().access_token.expose().to_owned();
    let args = ["crm.lead.add", "--params", "-", "--curl", "--allow-unknown-params"];
    let cases: [(&str, Command, Value); 3] = [
        ("webhook", world.command(&args), hostile()),
        ("oauth", world.oauth_command(&args), hostile()),
        ("oauth, nothing given", world.oauth_command(&["user.current", "--params", "-", "--curl"]), json!({})),
    ];
    for (what, mut command, params) in cases {
        let printed = Outcome::with_stdin(&mut command, params.to_string().as_bytes());
        assert_eq!((printed.status, printed.stdout.lines().count()), (0, 1), "{what}: {}{}", printed.stdout, printed.stderr);
        assert!(!printed.stdout.contains(&code) && !printed.stdout.contains(&token), "{what}");
        assert!(!printed.stdout.trim_end().chars().any(b24::json::is_unseen), "{what}: {}", printed.stdout);
        let variables = [("B24_WEBHOOK_CODE", code.as_str()), ("B24_ACCESS_TOKEN", token.as_str())];
        let words = words(&world, printed.stdout.trim_end(), &variables);
        let (data, url) = (words.last().unwrap(), words.iter().find(|word| word.starts_with("http")).unwrap());
        let before = world.requests().len();
        let answer = post(url, data);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        let seen = world.requests()[before..].to_vec();
        assert_eq!(seen.len(), 1, "{what}");
        let mut sent = seen[0].params.clone();
        sent.as_object_mut().unwrap().shift_remove("auth");
        assert_eq!(sent, params, "{what}");
        // And with the real one, where there is one.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", printed.stdout.trim_end()]).envs(variables).current_dir(world.home.path());
        match shell.output() {
            Ok(output) if output.status.code() != Some(127) => {
                let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
                assert!(answer.get("result").is_some(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(world.requests().len(), before + 2, "{what}");
            }
            _ => println!("there is no curl here: its words were sent by the test alone"),
        }
    }
    assert!(!world.home.path().join("pwned").exists());
}
