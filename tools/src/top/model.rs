//! What `sansq top` shows and how keys change it. It knows no terminal and no clock.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::table::{Key, Subject, Table};
use crate::cluster::{Focus, Snapshot};

/// The state of the view.
#[derive(Debug)]
pub(super) struct Model {
    /// Where Esc leads back to, the outermost first; the last one is looked at.
    path: Vec<Screen>,
    filter: String,
    is_typing: bool,
    is_help_shown: bool,
    /// Rows that fit, as the view said last; for Page Up and Page Down.
    page: usize,
    now: Option<Snapshot>,
    before: Option<Snapshot>,
    table: Option<Table>,
}

/// A table, how it is sorted, and what is selected in it.
#[derive(Clone, Debug)]
struct Screen {
    subject: Subject,
    column: usize,
    is_reversed: bool,
    selected: Option<Key>,
}

/// What a key asks of the driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Draw it again.
    Draw,
    /// Ask at once, with the focus as it is now; and draw.
    Ask,
    /// End.
    Quit,
}

impl Model {
    /// Begins with `subject`, sorted by the column of this number.
    pub(super) fn new(subject: Subject, column: usize, is_reversed: bool, filter: String) -> Self {
        Self {
            path: vec![Screen { subject, column, is_reversed, selected: None }],
            filter,
            is_typing: false,
            is_help_shown: false,
            page: 10,
            now: None,
            before: None,
            table: None,
        }
    }

    /// Takes a round of answers.
    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.before = self.now.replace(snapshot);
        self.arrange();
    }

    /// The channel whose consumers have to be asked for.
    pub(super) fn focus(&self) -> Focus {
        match self.subject() {
            Subject::Clients(topic, channel) => Some((topic.clone(), channel.clone())),
            Subject::Topics | Subject::Channels(_) | Subject::Nodes => None,
        }
    }

    /// Does what a key stands for.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys of a keyboard mean nothing here")]
    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Step {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Step::Quit;
        }
        if self.is_typing {
            self.handle_typing(key.code);
            return Step::Draw;
        }
        if core::mem::take(&mut self.is_help_shown) {
            return Step::Draw;
        }
        let focus = self.focus();
        match key.code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_help_shown = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('1' | 't') => self.go_to(Subject::Topics),
            KeyCode::Char('2' | 'c') => self.go_to(Subject::Channels(None)),
            KeyCode::Char('3' | 'n') => self.go_to(Subject::Nodes),
            KeyCode::Tab => self.go_to(match self.path[0].subject {
                Subject::Topics => Subject::Channels(None),
                Subject::Channels(_) | Subject::Clients(..) => Subject::Nodes,
                Subject::Nodes => Subject::Topics,
            }),
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.leave(),
            KeyCode::Left | KeyCode::Char('<') => self.choose_column(-1),
            KeyCode::Right | KeyCode::Char('>') => self.choose_column(1),
            KeyCode::Char('r') => {
                let place = self.place();
                place.is_reversed = !place.is_reversed;
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::PageUp => self.select(-isize::try_from(self.page).unwrap_or(1)),
            KeyCode::PageDown => self.select(isize::try_from(self.page).unwrap_or(1)),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            _ => {}
        }
        self.arrange();
        if self.focus() == focus { Step::Draw } else { Step::Ask }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys of a keyboard mean nothing here")]
    fn handle_typing(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(char) if self.filter.len() < FILTER_LEN_MAX => self.filter.push(char),
            _ => {}
        }
        self.arrange();
    }

    fn go_to(&mut self, subject: Subject) {
        let column = usize::from(matches!(subject, Subject::Channels(None)));
        self.path = vec![Screen { subject, column, is_reversed: false, selected: None }];
        self.filter.clear();
    }

    /// From a topic to its channels, from a channel to its consumers.
    fn enter(&mut self) {
        let Some((topic, channel)) = self.selected_key() else { return };
        let subject = match self.subject() {
            Subject::Topics => Subject::Channels(Some(topic)),
            Subject::Channels(_) => Subject::Clients(topic, channel),
            Subject::Clients(..) | Subject::Nodes => return,
        };
        self.filter.clear();
        self.path.push(Screen { subject, column: 0, is_reversed: false, selected: None });
    }

    /// Takes the filter away, or else goes back by one table.
    fn leave(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.path.len() > 1 {
            self.path.pop();
        }
    }

    fn choose_column(&mut self, by: isize) {
        let Some(table) = &self.table else { return };
        let last = table.columns.len().saturating_sub(1);
        let place = self.place();
        place.column = place.column.saturating_add_signed(by).min(last);
        place.is_reversed = false;
    }

    fn select(&mut self, by: isize) {
        let Some(table) = &self.table else { return };
        let Some(last) = table.rows.len().checked_sub(1) else { return };
        let index = self.selected_index().unwrap_or(0).saturating_add_signed(by).min(last);
        let key = table.rows[index].key.clone();
        self.place().selected = Some(key);
    }

    /// Makes the table again: another round, another sorting, another filter. What was selected
    /// stays so, wherever it is now.
    fn arrange(&mut self) {
        let Some(now) = &self.now else { return };
        let place = self.current();
        let mut table = Table::new(&place.subject, now, self.before.as_ref());
        table.filter(&self.filter);
        table.sort(place.column, place.is_reversed);
        self.table = Some(table);
    }

    fn current(&self) -> &Screen {
        self.path.last().expect("the path is never empty")
    }

    fn place(&mut self) -> &mut Screen {
        self.path.last_mut().expect("the path is never empty")
    }

    fn selected_key(&self) -> Option<Key> {
        let index = self.selected_index()?;
        Some(self.table.as_ref()?.rows.get(index)?.key.clone())
    }
}

/// What the view asks.
impl Model {
    pub(super) fn subject(&self) -> &Subject {
        &self.current().subject
    }

    /// The table, sorted and filtered; none before the first round.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// The row that is selected: the first one, if none was chosen or it is gone.
    pub(super) fn selected_index(&self) -> Option<usize> {
        let rows = self.table.as_ref().map(|table| &table.rows).filter(|rows| !rows.is_empty())?;
        let selected = self.current().selected.as_ref();
        let found = selected.and_then(|key| rows.iter().position(|row| row.key == *key));
        Some(found.unwrap_or(0))
    }

    /// The column that is sorted by, and whether the other way round.
    pub(super) fn sorting(&self) -> (usize, bool) {
        (self.current().column, self.current().is_reversed)
    }

    /// The filter, and whether it is being typed.
    pub(super) fn filter(&self) -> (&str, bool) {
        (&self.filter, self.is_typing)
    }

    pub(super) fn is_help_shown(&self) -> bool {
        self.is_help_shown
    }

    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.now.as_ref()
    }

    /// Remembers how many rows there is room for.
    pub(super) fn set_page(&mut self, rows: usize) {
        self.page = rows.max(1);
    }
}

/// Bytes of a filter: longer than any name.
const FILTER_LEN_MAX: usize = 100;
