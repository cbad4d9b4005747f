//! The engine on a thread of its own: one request at a time, with all of the processor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use zoetrope_api::task::Model;
use zoetrope_engine::pipeline::{Event, Listener, PREVIEW_SIDE, Request};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::{Interrupt, lora::Applied};
use zoetrope_files::Picture;

use crate::adapters::Adapters;
use crate::error::JobError;
use crate::references::reference;
use crate::residency::Residency;
use crate::train::{self, Trained, Training};

/// Work for the engine.
pub(crate) struct Work {
    pub(crate) model: Model,
    pub(crate) request: Request,
    /// Pictures that the prompt speaks of, as they were sent.
    pub(crate) references: Vec<Picture>,
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
    /// The expanded prompt has grown by this.
    Words(String),
    /// A step was taken.
    Step { done: usize, of: usize },
    /// What the picture looks like by now.
    Preview { done: usize, of: usize, picture: Rgb },
    /// The prompt's end was cut off.
    PromptCut { tokens: usize },
    /// There is no control network for this request.
    Uncontrolled,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pictures: Vec<Rgb>,
    pub(crate) took: Duration,
    /// What the prompt was expanded to, if it was.
    pub(crate) expanded: Option<String>,
}

type Answer<T> = oneshot::Sender<Result<T, JobError>>;

/// What the engine's thread is asked for.
enum Order {
    Draw(Box<Work>, Answer<Made>),
    Train(Box<Training>, Answer<Trained>),
}

/// Makes pictures and adapters, one at a time. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    orders: mpsc::Sender<Order>,
    /// Of Turbo, of the base model, and of the one that edits.
    resolutions: [u32; 3],
}

impl Engine {
    /// The networks, on a thread that ends with the last clone.
    pub fn networks(residency: Residency) -> Self {
        let of = |model| residency.resolution_for(model);
        let resolutions = [of(Model::Turbo), of(Model::Base), of(Model::Edit)];
        let room = Room::Networks { residency: Box::new(residency), adapters: Adapters::default() };
        Self { orders: thread(room), resolutions }
    }

    /// Sleeps for `step` each step and draws nothing: for measuring what surrounds the engine.
    pub fn asleep(step: Duration) -> Self {
        Self { orders: thread(Room::Asleep(step)), resolutions: [1024; 3] }
    }

    /// Pixels a side of a square of the area that adapters of `model` are trained at.
    pub(crate) fn resolution_for(&self, model: Model) -> u32 {
        match model {
            Model::Turbo => self.resolutions[0],
            Model::Base => self.resolutions[1],
            Model::Edit => self.resolutions[2],
        }
    }

    pub(crate) async fn make(&self, work: Work) -> Result<Made, JobError> {
        self.ask(|answer| Order::Draw(Box::new(work), answer)).await
    }

    pub(crate) async fn train(&self, training: Training) -> Result<Trained, JobError> {
        self.ask(|answer| Order::Train(Box::new(training), answer)).await
    }

    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, JobError> {
        let (answer, made) = oneshot::channel();
        let gone = || JobError::Engine("the engine's thread has ended".into());
        self.orders.send(order(answer)).await.map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }
}

fn thread(mut room: Room) -> mpsc::Sender<Order> {
    let (orders, mut queue) = mpsc::channel::<Order>(1);
    let main = move || {
        while let Some(order) = queue.blocking_recv() {
            match order {
                Order::Draw(work, answer) => give(answer, || room.draw(&work)),
                Order::Train(training, answer) => give(answer, || room.train(&training)),
            }
        }
    };
    std::thread::Builder::new().name("engine".into()).spawn(main).expect("a thread starts");
    orders
}

fn give<T>(answer: Answer<T>, work: impl FnOnce() -> Result<T, JobError>) {
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let made = made.unwrap_or_else(|_| Err(JobError::Engine("panicked".into())));
    let _ = answer.send(made); // whoever asked may have gone
}

/// What works on the thread.
enum Room {
    Networks { residency: Box<Residency>, adapters: Adapters },
    Asleep(Duration),
}

impl Room {
    fn draw(&mut self, work: &Work) -> Result<Made, JobError> {
        match self {
            Self::Networks { residency, adapters } => draw(residency, adapters, work),
            Self::Asleep(step) => sleep(work, *step),
        }
    }

    fn train(&mut self, training: &Training) -> Result<Trained, JobError> {
        training.interrupt.check()?;
        match self {
            Self::Networks { residency, adapters } => {
                *adapters = Adapters::default();
                train::on_engine(&mut residency.for_training(training.model)?, training)
            }
            Self::Asleep(_) => Err(JobError::Engine("who sleeps learns nothing".into())),
        }
    }
}

fn draw(residency: &mut Residency, adapters: &mut Adapters, work: &Work) -> Result<Made, JobError> {
    let on = listener(work.news.clone());
    let pipeline = residency.pipeline(work.model)?;
    let level = work.request.acceleration;
    let mut applied = Vec::new();
    for (index, (path, scale)) in work.loras.iter().enumerate() {
        let adapter = adapters.read((work.model, pipeline), level, path, index, &on)?;
        applied.push(Applied { adapter, scale: *scale });
    }
    let begun = Instant::now();
    let mut request = work.request.clone();
    // Inpainting does without a control network where there is none that knows of gaps.
    if request.control.as_ref().is_some_and(|c| c.image.is_none()) && !pipeline.fills_gaps()? {
        request.control = None;
        let _ = work.news.send(News::Uncontrolled);
    }
    let references = work.references.iter().map(|r| reference(pipeline, r, Some(request.size)));
    request.references = references.collect::<Result<_, _>>()?;
    let generated = pipeline.generate(&request, &applied, &work.interrupt, &on)?;
    let (pictures, expanded) = (generated.pictures, generated.expanded);
    Ok(Made { pictures, took: begun.elapsed(), expanded })
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
        Event::Words { text } => say(News::Words(text.into())),
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
    Ok(Made { pictures, took: begun.elapsed(), expanded: None })
}
