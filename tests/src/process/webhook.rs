//! A place that takes posts over HTTP/1.1, on a thread for each connection, and answers as it is told.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Its threads end with the process.
#[derive(Debug)]
pub struct Webhook {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What was answered.
    pub status: u16,
}

#[derive(Debug)]
struct Shared {
    posts: Vec<Post>,
    status: u16,
    /// A header line for answers that are no success.
    header: &'static str,
}

impl Webhook {
    pub fn start() -> Webhook {
        Webhook::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn start_on(address: SocketAddr) -> Webhook {
        let listener = TcpListener::bind(address).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Mutex::new(Shared { posts: Vec::new(), status: 200, header: "" }));
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // A peer that dies in the middle of a post ends its thread.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Webhook { address, shared }
    }

    /// From here on. Answers that are no success say `header` (empty, or a line with its end).
    pub fn answer(&self, status: u16, header: &'static str) {
        let mut shared = lock(&self.shared);
        (shared.status, shared.header) = (status, header);
    }

    pub fn posts(&self) -> Vec<Post> {
        lock(&self.shared).posts.clone()
    }

    /// Events of all posts that were answered with success, those that came twice twice.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.posts().iter().filter(|post| post.status == 200).flat_map(Post::events).collect()
    }
}

impl Post {
    pub fn events(&self) -> Vec<serde_json::Value> {
        let text = std::str::from_utf8(&self.body).expect("JSON is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(mut post) = read_post(&mut reader)? {
        let header = {
            let mut shared = lock(shared);
            post.status = shared.status;
            shared.posts.push(post.clone());
            if post.status == 200 { "" } else { shared.header }
        };
        write!(reader.get_mut(), "HTTP/1.1 {} so\r\n{header}Content-Length: 2\r\n\r\nok", post.status)?;
    }
    Ok(())
}

/// `None`: the peer has closed.
fn read_post(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Post>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(Post { path, headers, body, status: 0 }))
}
