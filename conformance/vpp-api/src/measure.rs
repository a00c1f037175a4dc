//! The measurements.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use vpp_api_client::Client;
use vpp_api_client::messages::SwInterfaceDump;

use crate::echo::Echo;

/// Echoes and calls take turns by so many, so that both see the same machine.
const TURN: u32 = 100;

/// In microseconds.
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        let at = |percent: usize| all.get(all.len() * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
        Self { p50: at(50), p99: at(99) }
    }
}

pub(crate) async fn latencies(vpp: &Client, echo: &mut Echo, count: u32) -> anyhow::Result<(Spread, Spread)> {
    let (mut raw, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..count.div_ceil(TURN) {
        for _ in 0..TURN {
            let began = Instant::now();
            echo.once()?;
            raw.push(began.elapsed());
        }
        for _ in 0..TURN {
            let began = Instant::now();
            vpp.ping().await?;
            calls.push(began.elapsed());
        }
    }
    Ok((Spread::of(raw), Spread::of(calls)))
}

/// Calls a second, with so many callers.
pub(crate) async fn pipelined(vpp: &Client, count: u32, callers: u32) -> anyhow::Result<f64> {
    let each = count / callers;
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let vpp = vpp.clone();
        all.spawn(async move {
            for _ in 0..each {
                vpp.ping().await?;
            }
            Ok::<_, vpp_api_client::Error>(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(f64::from(each * callers) / began.elapsed().as_secs_f64())
}

pub(crate) async fn dumps(vpp: &Client, count: u32) -> anyhow::Result<(usize, Spread)> {
    let mut all = Vec::new();
    let found = vpp.dump(&SwInterfaceDump::default()).await?.len();
    for _ in 0..count {
        let began = Instant::now();
        let again = vpp.dump(&SwInterfaceDump::default()).await?.len();
        all.push(began.elapsed());
        ensure!(again == found, "{again} interfaces after {found}");
    }
    Ok((found, Spread::of(all)))
}
