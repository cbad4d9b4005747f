//! The engine on a thread of its own: pictures are made one request at a time, with all of the processor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use zoetrope_api::task::Model;
use zoetrope_engine::pipeline::{Event, Listener, PREVIEW_SIDE, Request};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::{Interrupt, lora::Applied};

use crate::adapters::Adapters;
use crate::error::JobError;
use crate::residency::Residency;

/// Work for the engine.
pub(crate) struct Work {
    pub(crate) model: Model,
    pub(crate) request: Request,
    /// Adapter files with their scales.
    pub(crate) loras: Vec<(PathBuf, f64)>,
    pub(crate) interrupt: Interrupt,
    pub(crate) news: mpsc::UnboundedSender<News>,
}

/// What the engine says while it works.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// A network is being read.
    Loading { component: &'static str, of: u64 },
    /// A step was taken.
    Step { done: usize, of: usize },
    /// What the picture looks like by now.
    Preview { done: usize, of: usize, picture: Rgb },
    /// The prompt's end was cut off.
    PromptCut { tokens: usize },
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pictures: Vec<Rgb>,
    pub(crate) took: Duration,
}

type Answer = oneshot::Sender<Result<Made, JobError>>;

/// Makes pictures. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    work: mpsc::Sender<(Work, Answer)>,
}

impl Engine {
    /// The networks, on a thread that ends with the last clone.
    pub fn networks(residency: Residency) -> Self {
        let mut room = Room { residency, adapters: Adapters::default() };
        Self::thread(move |work| room.run(work))
    }

    /// Sleeps for `step` each step and draws nothing: for measuring what surrounds the engine.
    pub fn asleep(step: Duration) -> Self {
        Self::thread(move |work| sleep(work, step))
    }

    fn thread(mut run: impl FnMut(&Work) -> Result<Made, JobError> + Send + 'static) -> Self {
        let (work, mut queue) = mpsc::channel::<(Work, Answer)>(1);
        let main = move || {
            while let Some((work, answer)) = queue.blocking_recv() {
                let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&work)));
                let made = made.unwrap_or_else(|_| Err(JobError::Engine("panicked".into())));
                let _ = answer.send(made); // whoever asked may have gone
            }
        };
        std::thread::Builder::new().name("engine".into()).spawn(main).expect("a thread starts");
        Self { work }
    }

    pub(crate) async fn make(&self, work: Work) -> Result<Made, JobError> {
        let (answer, made) = oneshot::channel();
        let gone = || JobError::Engine("the engine's thread has ended".into());
        self.work.send((work, answer)).await.map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }
}

struct Room {
    residency: Residency,
    adapters: Adapters,
}

impl Room {
    fn run(&mut self, work: &Work) -> Result<Made, JobError> {
        let on = listener(work.news.clone());
        let pipeline = self.residency.pipeline(work.model)?;
        let level = work.request.acceleration;
        let mut applied = Vec::new();
        for (index, (path, scale)) in work.loras.iter().enumerate() {
            let adapter = self.adapters.read((work.model, pipeline), level, path, index, &on)?;
            applied.push(Applied { adapter, scale: *scale });
        }
        let begun = Instant::now();
        let generated = pipeline.generate(&work.request, &applied, &work.interrupt, &on)?;
        Ok(Made { pictures: generated.pictures, took: begun.elapsed() })
    }
}

fn listener(news: mpsc::UnboundedSender<News>) -> Listener {
    let say = move |item| {
        let _ = news.send(item); // nobody listens any more once the request has ended
    };
    let last = std::sync::Mutex::new("");
    Arc::new(move |event: Event| match event {
        Event::Loading { component, of, .. } => {
            let mut last = last.lock().expect("nothing panics while it is held");
            if *last != component {
                *last = component;
                say(News::Loading { component, of });
            }
        }
        Event::Step { done, of, .. } => say(News::Step { done, of }),
        Event::Preview { done, of, picture } => {
            say(News::Preview { done, of, picture: picture.clone() });
        }
        Event::PromptCut { tokens } => say(News::PromptCut { tokens }),
        Event::Note { text } => tracing::warn!("{text}"),
        Event::Decoding => {}
    })
}

fn sleep(work: &Work, step: Duration) -> Result<Made, JobError> {
    let (begun, of) = (Instant::now(), work.request.steps.get());
    let (width, height) = (work.request.size.width() as usize, work.request.size.height() as usize);
    let grey = |width, height| Rgb { width, height, bytes: vec![127; 3 * width * height] };
    for done in 1..=of {
        work.interrupt.check()?;
        std::thread::sleep(step);
        let _ = work.news.send(News::Step { done, of });
        if work.request.previews && done < of {
            let picture = grey(width.min(PREVIEW_SIDE), height.min(PREVIEW_SIDE));
            let _ = work.news.send(News::Preview { done, of, picture });
        }
    }
    let pictures = (0..work.request.count.get()).map(|_| grey(width, height)).collect();
    Ok(Made { pictures, took: begun.elapsed() })
}
