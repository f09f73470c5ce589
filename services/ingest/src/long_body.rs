//! An NDJSON request: one event a line, taken in portions, so that a body of any length costs the memory of one.
//!
//! Called by [`crate::door_http`]. A body that ends within its first portion is answered like a batch. A longer one is answered while it
//! arrives: one result a line, in order, then a summary. Whoever reads no answers is read no further, because both go over one
//! connection; whoever does neither in time is left. Where an event is refused for now the body is taken no further: nothing passes it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use roomcast_chassis::trace::Step;
use roomcast_proto::limits::BATCH_EVENTS_MAX;
use roomcast_proto::refusal::{Code, Refusal};
use tokio::sync::mpsc::{Sender as Channel, channel};

use crate::accept::Sender;
use crate::answer::{Answer, Summary, Taken, lines};
use crate::body::{Source, Stop, Unread, too_large};
use crate::capacity::Place;
use crate::door_http::{HttpDoor, PATH};
use crate::intake::{Request, Shape};
use crate::lines::{Lines, Portion};
use crate::metrics::Door;
use crate::now_micros;

/// Portions answered that the connection has not yet taken.
const ANSWERS_WAITING_MAX: usize = 2;

/// One such request.
#[derive(Debug)]
pub struct LongBody {
    door: Arc<HttpDoor>,
    sender: Arc<Sender>,
    place: Place,
    headers: HeaderMap,
    backfill: bool,
    source: Source,
    lines: Lines,
    /// What has come and is not yet in `lines`.
    ahead: Bytes,
}

/// What to answer.
#[derive(Debug)]
pub enum Reply {
    /// All at once.
    Whole(Answer),
    /// The same, and the connection should be closed, because the body was not read to its end.
    Broken(Answer),
    /// NDJSON, as it comes.
    Stream(Body),
}

impl LongBody {
    /// Begins; nothing is read.
    #[must_use]
    pub fn new(
        door: Arc<HttpDoor>,
        sender: Arc<Sender>,
        place: Place,
        headers: HeaderMap,
        backfill: bool,
        source: Source,
    ) -> Self {
        let lines = Lines::new(BATCH_EVENTS_MAX, door.body.bytes_max);
        Self {
            door,
            sender,
            place,
            headers,
            backfill,
            source,
            lines,
            ahead: Bytes::new(),
        }
    }

    /// Takes the first portion, and the rest in a task of its own where there is one.
    ///
    /// # Errors
    /// The body could not be read; nothing was done.
    ///
    /// # Cancel safety
    /// Dropped while the first portion is read, nothing is done. After that what was begun is brought to its end all the same.
    pub async fn answer(mut self, step: &Step) -> Result<Reply, Unread> {
        let first = match self.portion().await {
            Err(Stop::Unread(unread)) => return Err(unread),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Ok(first) => Ok(first),
        };
        let door = Arc::clone(&self.door);
        Ok(door.to_its_end(step, self.begin(first)).await)
    }

    async fn begin(mut self, first: Result<(Portion, bool), Refusal>) -> Reply {
        let (portion, more) = match first {
            Ok(portion) => portion,
            Err(refusal) => return Reply::Broken(self.refuse(refusal).await),
        };
        let open = self.door.intake.open_to(&self.request(&portion));
        let nothing = || Refusal::new(Code::BadRequest, "the body holds no event");
        let refusal = open.err().or_else(|| portion.lines.is_empty().then(nothing));
        if let Some(refusal) = refusal {
            let request = self.request(&portion);
            let answer = self.door.intake.refused_whole(&request, refusal).await;
            return if more {
                Reply::Broken(answer)
            } else {
                Reply::Whole(answer)
            };
        }
        if !more {
            return Reply::Whole(Answer::Batch(self.take(&portion).await));
        }
        let (answers, waiting) = channel(ANSWERS_WAITING_MAX);
        let door = Arc::clone(&self.door);
        door.under_way.spawn(self.go_on(portion, answers));
        let answers = futures_util::stream::unfold(waiting, |mut waiting| async {
            let answer = waiting.recv().await?;
            Some((Ok::<_, Infallible>(answer), waiting))
        });
        Reply::Stream(Body::from_stream(answers))
    }

    async fn go_on(mut self, mut portion: Portion, answers: Channel<Bytes>) {
        let within = self.door.body.within;
        let mut summary = Summary::default();
        let mut more = true;
        let still_sending = loop {
            let taken = self.take(&portion).await;
            summary.add(&taken);
            let answer = Bytes::from(lines(&taken));
            let told = tokio::time::timeout(within, answers.send(answer)).await;
            if !matches!(told, Ok(Ok(()))) {
                // Nobody reads: without a summary the answer is not whole, and the publisher repeats what it has no result of.
                self.door.intake.metrics.unheard.inc();
                return;
            }
            if !more {
                break false;
            }
            if let Some(refusal) = refused_for_now(&taken) {
                summary.cut(refusal);
                break true;
            }
            match self.next().await {
                Ok(next) => (portion, more) = next,
                Err(refusal) => {
                    summary.cut(refusal);
                    break false;
                }
            }
        };
        // Nobody left to hear it means nobody left to tell.
        let _ = tokio::time::timeout(within, answers.send(Bytes::from(summary.line()))).await;
        if still_sending {
            drop(answers);
            self.pass_over().await;
        }
    }

    /// Reads what still comes and keeps none of it, within the time a portion has: many who are still sending when a connection ends do not
    /// read what was said before.
    async fn pass_over(self) {
        let Self {
            door,
            place,
            mut source,
            ..
        } = self;
        drop(place);
        let rest = async { while let Ok(Some(_)) = source.piece().await {} };
        let _ = tokio::time::timeout(door.body.within, rest).await;
    }

    /// The next portion, if its sender may still publish: a body may outlast its token.
    async fn next(&mut self) -> Result<(Portion, bool), Refusal> {
        let now_secs = now_micros().div_euclid(1_000_000);
        self.door.bearers.sender(&self.headers, now_secs)?;
        match self.portion().await {
            Ok(portion) => Ok(portion),
            Err(Stop::Unread(unread)) => Err(self.door.unread(unread)),
            Err(Stop::Refused(refusal)) => {
                self.refuse(refusal.clone()).await;
                Err(refusal)
            }
        }
    }

    /// Reads one portion, within the time a body has; and whether another follows.
    async fn portion(&mut self) -> Result<(Portion, bool), Stop> {
        let within = self.door.body.within;
        let late = |_| Err(Stop::Unread(Unread::Late));
        tokio::time::timeout(within, self.fill())
            .await
            .unwrap_or_else(late)
    }

    async fn fill(&mut self) -> Result<(Portion, bool), Stop> {
        let bytes_max = self.door.body.bytes_max;
        loop {
            let held = self.lines.held_bytes() + self.source.held_bytes() + self.ahead.len();
            self.place
                .cover(held)
                .map_err(|full| Stop::Unread(Unread::Full(full)))?;
            if self.lines.fill(&mut self.ahead) {
                return Ok((self.lines.take(false), true));
            }
            if self.lines.line_bytes() > bytes_max {
                return Err(Stop::Refused(too_large(bytes_max)));
            }
            match self.source.piece().await? {
                Some(piece) => self.ahead = piece,
                None => return Ok((self.lines.take(true), false)),
            }
        }
    }

    async fn take(&mut self, portion: &Portion) -> Vec<Taken> {
        let request = self.request(portion);
        let intake = &self.door.intake;
        intake.take_lines(&request, &portion.lines, now_micros()).await
    }

    fn request<'a>(&'a self, portion: &Portion) -> Request<'a> {
        Request::posted(
            &self.sender,
            self.backfill,
            PATH,
            Shape::Batch,
            portion.bytes.clone(),
        )
    }

    /// Refuses what has been read and not yet been taken: the beginning of a packed body as it came, else the line that was begun.
    async fn refuse(&mut self, refusal: Refusal) -> Answer {
        let line_bytes = self.lines.line_bytes();
        let (bytes, original_bytes) = self
            .source
            .packed()
            .unwrap_or_else(|| (self.lines.take(true).bytes, line_bytes));
        let intake = &self.door.intake;
        intake
            .refuse(Door::Http, &self.sender, PATH, bytes, original_bytes, refusal)
            .await
    }
}

/// Why a portion was not taken to its end for now: what follows must not pass it.
fn refused_for_now(taken: &[Taken]) -> Option<Refusal> {
    let refused = taken.iter().filter_map(|taken| taken.as_ref().err());
    let mut for_now = refused.filter(|not_taken| not_taken.refusal.code.temporary());
    for_now.next().map(|not_taken| not_taken.refusal.clone())
}
