package tty

import (
	"os"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// corner is a terminal whose cursor waits, unseen, in the upper left corner of the
// picture. A terminal that becomes narrower folds the lines that are too long now and
// takes the cursor along with the text that it stands on. So it is still where the
// picture begins, however many lines that has become, and the next one is drawn over
// all of it. Between lines it would stand a number of lines below the beginning that
// nobody knows.
//
// Only a cursor that is shown can be sent anywhere by bubbletea, which is why what
// shows it is left out here. Lines are not folded by the terminal meanwhile: a picture that is
// on its way while the terminal changes moves the cursor by no line.
type corner struct{ *os.File }

const (
	take = "\x1b[?25l\x1b[?7l" // no cursor, lines are cut
	give = "\x1b[?7h\x1b[?25h"
)

// adapted is what bubbletea says of how a cursor looks, and how it clears all that is
// below. A line of tmux that was folded stays marked so when it is cleared, and is joined
// with the next one when the terminal becomes wider; one that is inserted is new. And what
// is cleared from the upper left corner of the screen goes to what can be scrolled back
// to; from the second column it does not.
var adapted = strings.NewReplacer("\x1b[?25h", "", "\x1b[?25l", "", "\x1b[1 q", "", "\x1b[J", "\x1b[L\x1b[C\x1b[J\r")

// home is where the cursor waits.
func home() *tea.Cursor { return tea.NewCursor(0, 0) }

func (c corner) Write(b []byte) (int, error) {
	if _, err := c.File.WriteString(adapted.Replace(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
