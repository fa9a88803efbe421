//! A client of a script: a task that holds a WebSocket or a feed, and queues its events.

use super::StepResult;
use tidegate_edge::client::{HttpResponse, ServerEvent, StreamEvent, WebSocketClient};
use tidegate_hub::{Close, Message};
use tokio::{
    io::DuplexStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// A client with a WebSocket or a feed.
pub(super) struct Participant {
    pub(super) events: UnboundedReceiver<ClientEvent>,
    /// None for feeds, and after the connection has ended.
    commands: Option<UnboundedSender<ClientCommand>>,
}

pub(super) enum ClientCommand {
    Send(Message),
    Close(Close),
}

#[derive(Debug)]
pub(super) enum ClientEvent {
    Message(Message),
    Event(StreamEvent),
    Closed(Close),
    Ended,
}

impl Participant {
    /// A participant whose connection ended with the server.
    pub(super) fn disconnected() -> Participant {
        let (sender, events) = unbounded_channel();
        _ = sender.send(ClientEvent::Closed(Close {
            code: 1006,
            reason: String::new(),
        }));
        Participant {
            events,
            commands: None,
        }
    }

    pub(super) fn command(&self, client: &str, command: ClientCommand) -> StepResult {
        let is_sent = self
            .commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok());
        if is_sent {
            Ok(())
        } else {
            Err(format!("the WebSocket of {client} is closed"))
        }
    }

    pub(super) fn with_socket(mut client: WebSocketClient<DuplexStream>) -> Participant {
        let (sender, events) = unbounded_channel();
        let (commands, mut received) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    command = received.recv() => match command {
                        Some(ClientCommand::Send(message)) => _ = client.send(message).await,
                        Some(ClientCommand::Close(close)) => client.close(close).await,
                        None => return,
                    },
                    received = client.receive() => match received {
                        ServerEvent::Message(message) => _ = sender.send(ClientEvent::Message(message)),
                        ServerEvent::Closed(close) => {
                            _ = sender.send(ClientEvent::Closed(close));
                            return;
                        }
                    },
                }
            }
        });
        Participant {
            events,
            commands: Some(commands),
        }
    }

    pub(super) fn with_feed(mut answer: HttpResponse) -> Participant {
        let (sender, events) = unbounded_channel();
        tokio::spawn(async move {
            let mut read = String::new();
            while let Ok(Some(piece)) = answer.next_piece().await {
                read += &String::from_utf8_lossy(&piece);
                while let Some(event) = StreamEvent::take(&mut read) {
                    if sender.send(ClientEvent::Event(event)).is_err() {
                        return;
                    }
                }
            }
            _ = sender.send(ClientEvent::Ended);
        });
        Participant {
            events,
            commands: None,
        }
    }
}
