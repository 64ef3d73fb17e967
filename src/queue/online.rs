//! The receiver of online events as a source: what it let in goes to the inbox
//! and is answered when it is there, on disk.
//!
//! Online events are sent once and have no id, and their time has the
//! resolution of a second. So an event is told from others by portal,
//! subscription, name, time and content, and it is handed over a second after
//! it arrived: two changes of an object within one second may look the same,
//! and then the handler, which reads the object's state, must do so after
//! both.

use super::event::{NewEvent, entity_of, raw};
use super::message::{Message, Signal};
use super::{EventKey, Origin};
use crate::error::Failure;
use crate::receive::{Ailment, Alarm, Delivery, Health, Received, Stored};
use serde_json::json;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

/// How long an event is kept back, in milliseconds.
const HOLD_MS: i64 = 1_000;

/// How many deliveries go to the inbox at once.
const AT_ONCE: usize = 256;

/// How often the source looks whether it is to stop.
const BLINK: Duration = Duration::from_millis(100);

/// How many looks it takes until it is seen to how the receiver is.
const BLINKS: u32 = 10;

/// The signal that there is something in the offline queue.
const OFFLINE_SIGNAL: &str = "ONOFFLINEEVENT";

/// The receiver as a source.
pub struct OnlineSource<'a> {
    /// What the receiver let in.
    pub received: Receiver<Received>,
    /// The engine.
    pub engine: Sender<Message>,
    /// What the engine says.
    pub signals: Receiver<Signal>,
    /// How many unfinished events are too many: then deliveries are refused.
    pub too_many: usize,
    /// Wakes the workers of the offline queue.
    pub wake: &'a (dyn Fn() + Sync),
    /// Looks after the receiver, now and then.
    pub watch: &'a Watch<'a>,
    /// What the receiver says of itself.
    pub health: Health,
}

/// Looks after the receiver; an error is the end.
pub type Watch<'a> = dyn Fn() -> Result<(), Box<Failure>> + Sync + 'a;

/// The engine is gone.
struct Gone;

/// A step that failed.
enum Ended {
    /// There is nobody to tell.
    Silently,
    /// The engine is to be told why.
    Because(Box<Failure>),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Ended {
        Ended::Silently
    }
}

impl OnlineSource<'_> {
    /// Works until it is told to stop. The receiver is to be stopped by its
    /// owner, when this has returned.
    pub fn run(self) {
        let result = match self.work() {
            Ok(()) => Ok(()),
            Err(Ended::Silently) => return,
            Err(Ended::Because(failure)) => Err(failure),
        };
        let _ = self.engine.send(Message::SourceEnded(result));
    }

    fn work(&self) -> Result<(), Ended> {
        let mut blinks = 0;
        while !self.is_stopped() {
            match self.received.recv_timeout(BLINK) {
                Ok(first) => {
                    let others = self.received.try_iter().take(AT_ONCE - 1);
                    self.take(std::iter::once(first).chain(others).collect())?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            blinks += 1;
            if blinks % BLINKS == 0 {
                self.look_round()?;
            }
        }
        Ok(())
    }

    /// Looks whether an event that came now would be stored.
    fn look_round(&self) -> Result<(), Ended> {
        let unfinished = self.ask(Message::Unfinished)?;
        // The engine has answered: what was not stored in time was a passing
        // trouble.
        self.health.recovers(Ailment::NotStored);
        self.judge(unfinished);
        (self.watch)().map_err(Ended::Because)
    }

    fn judge(&self, unfinished: usize) {
        match unfinished >= self.too_many {
            true => self.health.ails(Ailment::InboxFull),
            false => self.health.recovers(Ailment::InboxFull),
        }
    }

    /// Returns whether it is to end, also because there is no engine.
    fn is_stopped(&self) -> bool {
        loop {
            match self.signals.try_recv() {
                Ok(Signal::Stop) | Err(TryRecvError::Disconnected) => return true,
                Ok(Signal::Settle) => {}
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn take(&self, received: Vec<Received>) -> Result<(), Gone> {
        let (mut events, mut waiting) = (Vec::new(), Vec::new());
        for one in received {
            match one {
                Received::Alarm(alarm) => self.tell(Message::Note("alarm", alarm.kind.text(), alarm_text(&alarm)))?,
                Received::Delivery { delivery, stored } if delivery.event == OFFLINE_SIGNAL => {
                    (self.wake)();
                    stored.confirm();
                }
                Received::Delivery { delivery, stored } => {
                    events.push(event(&delivery));
                    waiting.push(stored);
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let unfinished = self.ask(Message::Unfinished)?;
        self.judge(unfinished);
        if unfinished >= self.too_many {
            let text = format!("{} events were refused: too many wait to be handled", waiting.len());
            waiting.into_iter().for_each(Stored::refuse);
            return self.tell(Message::Note("alarm", "inbox_full", text));
        }
        self.ask(|stored| Message::Arrived { events, closes: None, stored })?;
        crate::crash::point("queue.before_confirmation");
        for stored in waiting {
            // Who no longer waits has been told 503, and the event is stored
            // all the same: handled, not lost.
            stored.confirm();
        }
        Ok(())
    }

    fn tell(&self, message: Message) -> Result<(), Gone> {
        self.engine.send(message).map_err(|_| Gone)
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Message) -> Result<T, Gone> {
        let (answer, answered) = channel();
        self.tell(question(answer))?;
        answered.recv().map_err(|_| Gone)
    }
}

fn event(delivery: &Delivery) -> NewEvent {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let identity = [&text(&delivery.member_id), &text(&delivery.handler_id), &delivery.event, &text(&delivery.ts), &delivery.body_digest];
    let payload = json!({
        "event": delivery.event, "event_handler_id": delivery.handler_id, "data": delivery.data, "ts": delivery.ts, "auth": delivery.auth,
    });
    NewEvent {
        key: EventKey::of(&format!("online:{}", identity.map(String::as_str).join("\0"))),
        name: delivery.event.clone(),
        entity: entity_of(&delivery.event, &delivery.data),
        order: None,
        origin: Origin::Online,
        hold_ms: HOLD_MS,
        payload: raw(&payload),
        unusable: None,
    }
}

fn alarm_text(alarm: &Alarm) -> String {
    let event = alarm.event.as_deref().unwrap_or("an event");
    let domain = alarm.domain.as_ref().map_or_else(String::new, |domain| format!(", which claims to come from {domain},"));
    let more = if alarm.suppressed > 0 { format!("; {} like it before", alarm.suppressed) } else { String::new() };
    format!("{event}{domain} was refused ({}); it came from {}{more}", alarm.kind.text(), alarm.peer)
}
