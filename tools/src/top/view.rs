//! How the model looks on a terminal.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{
    Cell as Shown, Clear, Paragraph, Row as ShownRow, Table as Grid, TableState,
};

use super::model::Model;
use super::table::{Cell, Row, Subject, Table};

/// Draws everything.
pub(super) fn draw(model: &mut Model, frame: &mut Frame<'_>) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    model.set_page(usize::from(body.height.saturating_sub(1)));
    frame.render_widget(Paragraph::new(heading(model)), head);
    match model.table() {
        Some(table) => draw_table(model, table, frame, body),
        None => frame.render_widget(Paragraph::new("asking ..."), body),
    }
    frame.render_widget(Paragraph::new(footing(model)), foot);
    if model.is_help_shown() {
        draw_help(frame);
    }
}

/// Two lines: where one is, and how the nsqds are.
fn heading(model: &Model) -> Text<'static> {
    let what = match model.subject() {
        Subject::Topics => "topics".to_owned(),
        Subject::Channels(None) => "channels".to_owned(),
        Subject::Channels(Some(topic)) => format!("channels of {topic}"),
        Subject::Clients(topic, channel) => format!("clients of {topic}/{channel}"),
        Subject::Nodes => "nsqds".to_owned(),
    };
    let state = match model.snapshot() {
        None => String::new(),
        Some(snapshot) => {
            let (all, answering) = (snapshot.nodes.len(), snapshot.answers().count());
            let ill = snapshot.answers().filter(|(_, node)| node.health != "OK").count();
            let mut text = match all - answering {
                0 => format!("{all} nsqds"),
                missing => format!("{all} nsqds, {missing} without an answer"),
            };
            if ill > 0 {
                text.push_str(&format!(", {ill} not well"));
            }
            if let Some(error) = &snapshot.lookup_error {
                text.push_str(&format!(", {error}"));
            }
            text
        }
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Text::from(vec![Line::styled(format!("sansq top: {what}"), bold), Line::from(state)])
}

fn draw_table(model: &Model, table: &Table, frame: &mut Frame<'_>, area: Rect) {
    let (sorted_by, is_reversed) = model.sorting();
    let columns = visible(&table.widths(), sorted_by, usize::from(area.width));
    let name = |(index, _): &(usize, usize)| {
        let mark = match (*index == sorted_by, is_reversed) {
            (false, _) => "",
            (true, false) => "*",
            (true, true) => "^",
        };
        let name = table.columns.get(*index).copied().unwrap_or_default();
        aligned(format!("{name}{mark}"), table.is_left(*index))
    };
    let names: Vec<_> = columns.iter().map(name).collect();
    // What is not on the screen is not formatted: there may be 100,000 rows.
    let height = usize::from(area.height.saturating_sub(1));
    let selected = model.selected_index();
    let first = selected.map_or(0, |index| (index + 1).saturating_sub(height.max(1)));
    let row = |row: &Row| {
        let cells = columns.iter().map(|(index, _)| {
            let text = row.cells.get(*index).map(Cell::to_string).unwrap_or_default();
            aligned(text, table.is_left(*index))
        });
        // The nsqd that does not answer stands out.
        let is_missing = row.cells.last() == Some(&Cell::None);
        let style = if is_missing { Modifier::BOLD } else { Modifier::empty() };
        ShownRow::new(cells).style(Style::new().add_modifier(style))
    };
    let rows = table.rows.iter().skip(first).take(height).map(row);
    let width =
        |(_, width): &(usize, usize)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX));
    let grid = Grid::new(rows, columns.iter().map(width))
        .column_spacing(SPACING)
        .header(ShownRow::new(names).style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected.map(|index| index - first));
    frame.render_stateful_widget(grid, area, &mut state);
}

/// The columns that there is room for, with their widths: the first one, and as many of the others
/// as fit, from the left, or so that the one that is sorted by is the last of them.
fn visible(widths: &[usize], sorted_by: usize, room: usize) -> Vec<(usize, usize)> {
    // One more for the mark of the column that is sorted by.
    let widths = widths.iter().map(|width| (*width).min(COLUMN_WIDTH_MAX) + 1).enumerate();
    let all: Vec<(usize, usize)> = widths.collect();
    let Some((name, others)) = all.split_first() else { return all };
    let needed = |columns: &[(usize, usize)]| -> usize {
        columns.iter().map(|(_, width)| width + usize::from(SPACING)).sum()
    };
    let room = room.saturating_sub(name.1);
    let mut first = 0;
    while first + 1 < sorted_by && needed(&others[first..sorted_by.min(others.len())]) > room {
        first += 1;
    }
    let mut columns = vec![*name];
    let mut used = 0;
    for column in &others[first..] {
        used += column.1 + usize::from(SPACING);
        // At least one other is shown, cut if it has to be.
        if used > room && columns.len() > 1 {
            break;
        }
        columns.push(*column);
    }
    columns
}

fn aligned(text: String, is_left: bool) -> Shown<'static> {
    let side = if is_left { Alignment::Left } else { Alignment::Right };
    Shown::from(Text::from(text).alignment(side))
}

fn footing(model: &Model) -> String {
    let rows = model.table().map_or(0, |table| table.rows.len());
    match model.filter() {
        (filter, true) => format!("filter: {filter}_   Enter keeps it, Esc takes it away"),
        ("", false) => format!("{rows} rows   1 topics 2 channels 3 nsqds   ? help   q quit"),
        (filter, false) => format!("{rows} rows with {filter:?}   Esc takes the filter away"),
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let all = frame.area();
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let columns = HELP.lines().map(str::len).max().unwrap_or(0);
    let width = u16::try_from(columns).unwrap_or(u16::MAX).min(all.width);
    let height = lines.min(all.height);
    let area = Rect::new((all.width - width) / 2, (all.height - height) / 2, width, height);
    frame.render_widget(Clear, area);
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(HELP).style(style), area);
}

/// Between two columns.
const SPACING: u16 = 1;

/// Of a column: a name with its mark fits, a long error is cut.
const COLUMN_WIDTH_MAX: usize = 73;

const HELP: &str = "
  1, 2, 3 or Tab  topics, channels, nsqds
  Up, Down, Page Up, Page Down, Home, End
                  select a row
  Enter           a topic's channels, a channel's clients
  Esc             back
  Left, Right     sort by another column
  r               sort the other way round
  /               show only rows with some text
  q               quit

  IN/S   messages per second that came in
  OUT/S  messages per second that left for good, over all
         channels
  DEPTH  messages that wait, in a topic and its channels
  DISK   how many of them are not in memory

  Any key closes this.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_the_sorted_column_are_seen() {
        let numbers = |sorted_by, room| -> Vec<usize> {
            visible(&[9, 4, 4, 4, 4], sorted_by, room).into_iter().map(|(index, _)| index).collect()
        };
        assert_eq!(numbers(0, 100), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(0, 27), [0, 1, 2]);
        assert_eq!(numbers(2, 27), [0, 1, 2]);
        assert_eq!(numbers(3, 27), [0, 2, 3]);
        assert_eq!(numbers(4, 27), [0, 3, 4]);
        assert_eq!(numbers(4, 0), [0, 4]);
        assert_eq!(numbers(0, 0), [0, 1]);
        assert_eq!(visible(&[500], 0, 80), [(0, 74)]);
    }
}
