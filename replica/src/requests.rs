//! What clients ask.
//!
//! Invariant: a read is answered at a committed height with its certificate, or refused; whoever reads has
//! proved a principal on this connection, and that principal may act as the credential it names (rule S6). What
//! becomes of a session's operations is told to its own principal alone.

use crate::blocks::StoreRequest;
use crate::budgets::clients::Verdict;
use crate::clients::{No, WaitingRead, refused};
use crate::inbound::Refused;
use crate::node::{Due, Node};
use crate::past_states::{Question, Wanted};
use quorate_consensus::{Input, Verified, door};
use quorate_crypto::{Certificate, Hash, PublicKey};
use quorate_execution::{Answer, AnswerError, Answered, Errno};
use quorate_protocol::client::{
    CertifiedHeader, ClientReply, ClientRequest, Notice, ReadAnswer, Refusal, ReplicaStatus,
};
use quorate_protocol::file::{Segment, SegmentSource};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::query::{Query, ReadAt, ReadRequest};
use quorate_protocol::{Credential, Envelope, Header, Height, SessionId};
use quorate_transport::{ClientConnection, ClientEvent, ReplyHandle};
use std::time::Instant;

/// A block that a client asks for, by the file that refers to it (rule S5).
pub struct BlockWish {
    ino: u64,
    index: u64,
    id: Hash,
    credential: Credential,
    session: Option<SessionId>,
}

impl Node {
    pub(crate) fn on_client_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Closed { connection } => {
                self.clients.closed(connection);
                self.client_budgets.closed(connection);
            }
            ClientEvent::Request { connection, request, bytes, reply } => {
                let verdict = self.client_budgets.arrived(connection.id(), bytes, Instant::now());
                apply(verdict, &connection);
                self.on_request(&connection, request, reply);
            }
        }
    }

    fn on_request(&mut self, connection: &ClientConnection, request: ClientRequest, reply: ReplyHandle) {
        match request {
            // The transport answers it before it gets here.
            ClientRequest::Prove { .. } => reply.send(&refused(Refusal::Invalid, "proved already")),
            ClientRequest::Submit { envelope, results } => {
                self.submit(connection, envelope, results);
                reply.send(&ClientReply::Accepted);
            }
            ClientRequest::Read(request) => self.read(connection.clone(), request, reply),
            ClientRequest::Highest { known } => {
                let index = self.consensus.read_index();
                let certificate = if index.height > known { index.certificate } else { None };
                let height = if certificate.is_some() { index.height } else { index.height.min(known) };
                reply.send(&ClientReply::Highest { height, certificate });
            }
            ClientRequest::Await { certificate } => self.await_height(connection, certificate, reply),
            ClientRequest::Results { session, first } => {
                self.results(connection, &session, first, reply);
            }
            ClientRequest::PutBlocks { session, blocks } => {
                self.put_blocks(connection, session, blocks.into_inner(), reply);
            }
            ClientRequest::GetBlock { ino, index, id, credential, session, at } => {
                let wish = BlockWish { ino, index, id, credential, session };
                self.get_block(connection, wish, at, reply);
            }
            ClientRequest::Status => reply.send(&ClientReply::Status(self.status())),
            ClientRequest::History { from } => self.history_from(connection, from, reply),
            ClientRequest::Evidence { after } => {
                // A proposal that breaks a rule is shown whole, with what clients put into it.
                let page = || ClientReply::Evidence(self.evidence.page(after));
                reply.send(&self.refused_audit(connection).unwrap_or_else(page));
            }
            ClientRequest::Header { height } => self.header(connection, height, reply),
            ClientRequest::LogHeads => {
                // A size and a hash say nothing of what is in the tree.
                let known = self.principal(connection).is_some();
                reply.send(&if known { ClientReply::LogHeads(self.heads.signed()) } else { nobody() });
            }
        }
    }

    fn submit(&mut self, connection: &ClientConnection, envelope: Envelope, results: bool) {
        let body = &envelope.body;
        let (session, first) = (body.session, body.first);
        // Who only knows the identifier of a session gets nothing of it, and turns nothing away from others.
        let own = connection.principal() == Some(body.key) && self.may_follow(connection, &session);
        if own && !self.route(connection, session, results) {
            return;
        }
        if own
            && results
            && let Some((height, index)) = self.state.session_executed(&session, first)
        {
            // It is over: nothing of it needs to be checked again to tell its own principal what became of it.
            let connection = connection.clone();
            return self.history.results(height, index, move |found| {
                if let Some(found) = found {
                    connection.notify(&Notice::Results(found));
                }
            });
        }
        if let Some(envelope) = self.admit_of(connection, envelope) {
            self.inputs.push_back(Due::Request(envelope));
        }
    }

    /// Notes where the COMMITs of a session go.
    fn route(&mut self, connection: &ClientConnection, session: SessionId, results: bool) -> bool {
        let routed = self.clients.route(session, connection, results);
        if !routed {
            tracing::warn!(remote = %connection.remote(), "a client has too many sessions on one connection");
        }
        routed
    }

    /// Lets an envelope in that a client sends, at its own expense.
    fn admit_of(&mut self, connection: &ClientConnection, envelope: Envelope) -> Option<Verified<Envelope>> {
        let principal = self.principal(connection).map(|(key, _)| key);
        let now = Instant::now();
        if let Some(wait) = self.client_budgets.must_wait(principal.as_ref(), now) {
            // The client sends it again.
            connection.pause(wait);
            return None;
        }
        let before = self.verifier.checks();
        let admitted = self.admit(envelope);
        let checks = self.verifier.checks().saturating_sub(before);
        let held = !matches!(admitted, Err(Refused::Faulty { .. }));
        let whose = (connection.id(), principal.as_ref());
        apply(self.client_budgets.checked(whose, (checks, held), now), connection);
        if matches!(admitted, Err(Refused::Useless)) {
            apply(self.client_budgets.useless(connection.id(), now), connection);
        }
        admitted.ok()
    }

    /// Whether a session is that of the connection's principal, or one that is to be registered.
    fn may_follow(&self, connection: &ClientConnection, session: &SessionId) -> bool {
        self.state.session_key(session).is_none_or(|key| connection.principal() == Some(key))
    }

    /// The principal that this connection has proved, if the cluster knows it.
    fn principal(&self, connection: &ClientConnection) -> Option<(PublicKey, PrincipalRights)> {
        let key = connection.principal()?;
        let rights = self.state.principal_rights(&key)?;
        connection.admit();
        Some((key, rights))
    }

    fn read(&mut self, connection: ClientConnection, request: ReadRequest, reply: ReplyHandle) {
        #[cfg(feature = "faults")]
        if self.answers_at_any_height() {
            return reply.send(&self.answer(&connection, &request));
        }
        let height = match request.at {
            ReadAt::AtLeast(height) => height,
            ReadAt::Fresh(height) => height.max(self.consensus.read_index().height),
            ReadAt::Exactly(height) => return self.read_past(&connection, height, request, reply),
        };
        if height > self.state.height() {
            if self.principal(&connection).is_none() {
                // It may be so new that this replica has yet to hear of it: others are asked meanwhile.
                return reply.send(&refused(Refusal::Behind, "no principal at this height"));
            }
            return self.clients.wait(WaitingRead { connection, request, height, reply }, Instant::now());
        }
        reply.send(&self.answer(&connection, &request));
    }

    /// Answers at one height: the present one as always, others on threads of their own.
    fn read_past(
        &self,
        connection: &ClientConnection,
        height: Height,
        request: ReadRequest,
        reply: ReplyHandle,
    ) {
        if height == self.state.height() {
            return reply.send(&self.answer(connection, &request));
        }
        let Some((key, _)) = self.principal(connection) else { return reply.send(&nobody()) };
        let wanted = Wanted::Rows(request.credential, request.query);
        self.past.ask(connection.id(), Question { height, key, wanted, reply });
    }

    fn answer(&self, connection: &ClientConnection, request: &ReadRequest) -> ClientReply {
        let Some((key, _)) = self.principal(connection) else { return nobody() };
        let (state, certificate) = self.standing();
        read_reply(state.answer(&key, &request.credential, &request.query), state.header(), certificate)
    }

    /// What reads are answered from.
    #[cfg(not(feature = "faults"))]
    fn standing(&self) -> (&quorate_execution::State, Option<&Certificate>) {
        (&self.state, self.certificate.as_ref())
    }

    /// Answers the reads whose height is here now.
    pub(crate) fn answer_waiting_reads(&mut self) {
        for read in self.clients.ready(self.state.height(), Instant::now()) {
            read.reply.send(&self.answer(&read.connection, &read.request));
        }
    }

    fn await_height(&mut self, connection: &ClientConnection, certificate: Certificate, reply: ReplyHandle) {
        let principal = self.principal(connection).map(|(key, _)| key);
        let now = Instant::now();
        if let Some(wait) = self.client_budgets.must_wait(principal.as_ref(), now) {
            connection.pause(wait);
            return reply.send(&refused(Refusal::Busy, "too many signatures to check"));
        }
        let before = self.verifier.checks();
        let verified =
            door::verify_certificate(self.consensus.configuration(), self.verifier.as_ref(), certificate);
        let checks = self.verifier.checks().saturating_sub(before);
        let whose = (connection.id(), principal.as_ref());
        apply(self.client_budgets.checked(whose, (checks, verified.is_ok()), now), connection);
        match verified {
            Ok(certificate) => {
                self.inputs.push_back(Due::Input(Input::Await(certificate)));
                reply.send(&ClientReply::Accepted);
            }
            Err(rejection) => reply.send(&refused(Refusal::Invalid, &rejection.to_string())),
        }
    }

    fn results(&self, connection: &ClientConnection, session: &SessionId, first: u64, reply: ReplyHandle) {
        if !self.may_follow(connection, session) {
            return reply.send(&refused(Refusal::Denied, "the session is another principal's"));
        }
        let answer = move |found| {
            reply.send(&match found {
                Some(results) => ClientReply::Results(results),
                None => refused(Refusal::NotFound, "no results of that envelope are known here"),
            });
        };
        match self.state.session_executed(session, first) {
            Some((height, index)) => self.history.results(height, index, answer),
            None => answer(None),
        }
    }

    fn put_blocks(
        &mut self,
        connection: &ClientConnection,
        session: SessionId,
        blocks: Vec<quorate_crypto::BoundedBytes<{ quorate_protocol::limits::BLOCK_BYTES_MAX }>>,
        reply: ReplyHandle,
    ) {
        let Some((principal, _)) = self.principal(connection) else { return reply.send(&nobody()) };
        if self.state.session_next(&session).is_none() {
            return reply.send(&refused(Refusal::Denied, "blocks are stored for an open session only"));
        }
        if self.state.session_key(&session) != Some(principal) {
            return reply.send(&refused(Refusal::Denied, "the session is another principal's"));
        }
        let contents = blocks.into_iter().map(quorate_crypto::BoundedBytes::into_inner).collect();
        let request = StoreRequest {
            principal,
            session,
            contents,
            batch_time: self.state.header().time,
            epoch: self.state.header().epoch,
        };
        self.blocks.put(connection.id(), request, reply);
    }

    fn get_block(
        &self,
        connection: &ClientConnection,
        wish: BlockWish,
        at: Option<Height>,
        reply: ReplyHandle,
    ) {
        let Some((key, _)) = self.principal(connection) else { return reply.send(&nobody()) };
        if let Some(height) = at.filter(|height| *height != self.state.height()) {
            let wanted = Wanted::Block(connection.id(), wish);
            return self.past.ask(connection.id(), Question { height, key, wanted, reply });
        }
        match wished_block(&wish, |credential, query| self.state.answer(&key, credential, query)) {
            Ok(id) => self.blocks.get(connection.id(), id, reply),
            Err(no) => reply.send(&no.reply()),
        }
    }

    /// Gives the certified header of a height, which says nothing about anybody.
    fn header(&self, connection: &ClientConnection, height: Height, reply: ReplyHandle) {
        if self.principal(connection).is_none() {
            return reply.send(&nobody());
        }
        if height > self.state.height() {
            return reply.send(&refused(Refusal::Behind, "this replica has not reached that height"));
        }
        match self.history.recent_header(height) {
            Some((header, certificate)) => {
                let certificate = Some(certificate);
                reply.send(&ClientReply::Header(CertifiedHeader { header, certificate }));
            }
            // Not by the thread of the history: its places are for those who catch up and for results.
            None => self.past.header(connection.id(), height, reply),
        }
    }

    /// The refusal of a connection whose principal may not see what is in batches.
    fn refused_audit(&self, connection: &ClientConnection) -> Option<ClientReply> {
        match self.principal(connection) {
            Some((_, rights)) if rights.auditor || rights.administrator => None,
            Some(_) => Some(refused(Refusal::Denied, "the log is for auditors and administrators")),
            None => Some(nobody()),
        }
    }

    fn history_from(&self, connection: &ClientConnection, from: u64, reply: ReplyHandle) {
        if let Some(refusal) = self.refused_audit(connection) {
            return reply.send(&refusal);
        }
        self.history.committed_from(from, move |batches| {
            reply.send(&match batches.try_into() {
                Ok(batches) => ClientReply::History(batches),
                Err(_) => refused(Refusal::Invalid, "too many heights"),
            });
        });
    }

    fn status(&self) -> ReplicaStatus {
        let status = self.consensus.status();
        let me = self.consensus.configuration().me();
        let totals = self.state.totals();
        let usage = self.blocks.usage();
        ReplicaStatus {
            replica: me,
            epoch: status.epoch,
            view: status.view,
            leading: status.entered && status.leader == me,
            voting: status.may_prepare && status.entered,
            committed: self.state.height(),
            header: self.state.header().clone(),
            certificate: self.certificate.clone(),
            peers: self.peers.connected().try_into().unwrap_or_default(),
            pending: u32::try_from(status.pool).unwrap_or(u32::MAX),
            stored_blocks: usage.blocks,
            block_bytes: usage.content_bytes,
            state_rows: self.state.row_count(),
            inodes: totals.inodes,
            blocks: totals.blocks,
            horizon: self.past.horizon(),
            log_head: self.heads.last_size(),
            log_heads_halted: self.heads.is_halted(),
        }
    }
}

/// The reply to a read.
pub fn read_reply(
    answered: Result<Answered, AnswerError>,
    header: &Header,
    certificate: Option<&Certificate>,
) -> ClientReply {
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => return refused(Refusal::Invalid, &error.to_string()),
    };
    match answered.proof.try_into() {
        Ok(proof) => {
            ClientReply::Read(ReadAnswer { header: header.clone(), certificate: certificate.cloned(), proof })
        }
        Err(_) => refused(Refusal::Invalid, "the answer is too large: ask for less"),
    }
}

/// The block that is wished for, if by what `answer` says of the file its row may be read and names it (rule S5).
///
/// # Errors
/// The refusal.
pub fn wished_block(
    wish: &BlockWish,
    answer: impl FnOnce(&Credential, &Query) -> Result<Answered, AnswerError>,
) -> Result<Hash, No> {
    let query = Query::Content { ino: wish.ino, first: wish.index, count: 1, session: wish.session };
    let outcome = match answer(&wish.credential, &query) {
        Ok(answered) => answered.outcome,
        Err(_) => Err(Errno::EIO),
    };
    let is_named =
        |segment: &Segment| matches!(&segment.source, SegmentSource::Block { id, .. } if *id == wish.id);
    match outcome {
        Ok(Answer::Content(content))
            if content.rows.iter().flat_map(|(_, segments)| segments).any(is_named) =>
        {
            Ok(wish.id)
        }
        Ok(_) => Err(No::new(Refusal::NotFound, "that row of the file does not name this block")),
        Err(errno) => Err(No::new(Refusal::Denied, format!("the file may not be read: {errno}"))),
    }
}

/// Slows a client down, or ends its connection.
fn apply(verdict: Verdict, connection: &ClientConnection) {
    match verdict {
        Verdict::GoOn => {}
        Verdict::Pause(time) => connection.pause(time),
        Verdict::Close => {
            tracing::warn!(remote = %connection.remote(), "a client sends what does not hold again and again");
            connection.close("too much that does not hold");
        }
    }
}

/// The refusal of who has not proved a principal that the cluster knows.
fn nobody() -> ClientReply {
    refused(Refusal::Denied, "this connection's key is not that of a principal")
}
