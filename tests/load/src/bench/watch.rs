//! What a process spends while events reach a swarm.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use roomcast_load::cpu;
use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::Swarm;

/// What a process spent while frames reached the swarm.
pub struct Spent {
    /// CPU per frame, microseconds.
    pub micros_per_frame: f64,
    /// Frames in the time.
    pub frames: u64,
    /// Average size of a frame, bytes.
    pub frame_bytes: usize,
    /// Frames of one read of a client: those of one flush, or of more where the client came late.
    pub frames_per_read: f64,
    /// From when an event was due to be published to its frame in the client's hand.
    pub latencies: Histogram,
}

/// Watches a process and a swarm for some time.
pub async fn watch(pid: u32, swarm: &Swarm, time: Duration) -> Spent {
    let tally = &swarm.tally;
    let counts = || [&tally.events, &tally.event_bytes, &tally.reads].map(|count| count.load(Relaxed));
    drop(tally.latencies());
    let (cpu_before, before) = (cpu::read(pid).cpu_ns, counts());
    tokio::time::sleep(time).await;
    let (cpu_after, after) = (cpu::read(pid).cpu_ns, counts());
    let [frames, bytes, reads] = [0, 1, 2].map(|n| after[n] - before[n]);
    let per_frame = frames.max(1) as f64;
    Spent {
        micros_per_frame: (cpu_after - cpu_before) as f64 / 1000.0 / per_frame,
        frames,
        frame_bytes: (bytes as f64 / per_frame) as usize,
        frames_per_read: per_frame / reads.max(1) as f64,
        latencies: tally.latencies(),
    }
}

/// Refuses a measurement in which a client missed an event, got one twice, or was sent away.
///
/// # Errors
/// With the counts.
pub fn all_well(swarm: &Swarm) -> anyhow::Result<()> {
    let tally = &swarm.tally;
    let counts = [
        &tally.gaps,
        &tally.doubles,
        &tally.short,
        &tally.ended,
        &tally.refused,
    ];
    let [gaps, doubles, short, ended, refused] = counts.map(|count| count.load(Relaxed));
    anyhow::ensure!(
        gaps + doubles + short + ended + refused == 0,
        "not a good run: {gaps} events missed, {doubles} twice or out of order, {short} rooms caught up too early, {ended} sockets ended, {refused} refusals"
    );
    Ok(())
}
