package logtext_test

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
)

func TestLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"plain text", "plain text"},
		{"a\tb", "a\tb"},
		{"naïve 日本 👩‍💻", "naïve 日本 👩‍💻"},
		{"a: b # c", "a: b # c"},
		{"std::vector", "std::vector"},
		// Escape sequences.
		{"\x1b[1;31mred\x1b[0m", "red"},
		{"\x1b]0;title\x07text", "text"},
		{"\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"},
		{"\x1bPq#0;2;0;0;0\x1b\\x", "x"},
		{"\x1b_hidden\x1b\\x", "x"},
		{"\x1b(Bx\x1b7\x1bcy", "xy"},
		{"\u009b31mred", "red"},
		{"\u009d0;title\u009ctext", "text"},
		{"\x1b]52;c;no end", ""},
		{"a\x1b", "a"},
		{"\x1b[2J\x1b[Hgone", "gone"},
		// Progress bars.
		{"10%\r50%\r100%", "100%"},
		{"done\r", "done"},
		{"done\r\r", "done"},
		// Other controls and what is no text.
		{"a\x00b\x07c\x7fd\u0085e", "a\uFFFDb\uFFFDc\uFFFDd\uFFFDe"},
		{"\xff\xfe", "\uFFFD"},
		{"a\u202eb\u2066c\u2028d", "a\uFFFDb\uFFFDc\uFFFDd"},
		{"a\nb", "a b"},
		// Commands of GitHub, Azure and TeamCity.
		{"::error::x", ": :error::x"},
		{"  \t::set-output name=a::b", "  \t: :set-output name=a::b"},
		{"x ##[error]y", "x # #[error]y"},
		{"####[a", "### #[a"},
		{"##VSO[task.setvariable]x", "# #VSO[task.setvariable]x"},
		{"##teamcity[x]", "# #teamcity[x]"},
		{"\x1b[0m::error::x", ": :error::x"},
		{"x\r::error::y", ": :error::y"},
		{"#\x1b[0m#[error]", "# #[error]"},
		{":\x1b[0m:error::", ": :error::"},
		// GitLab's sections.
		{"\x1b[0Ksection_start:1:x\r\x1b[0Ktitle", "title"},
		{"section_end:1:x\r\x1b[0K", "section_end:1:x"},
	} {
		got := logtext.Line(c.in)
		if got != c.want {
			t.Errorf("Line(%q)\n got %q\nwant %q", c.in, got, c.want)
		}
	}
}

// commands are what a CI must not find in a line.
func speaks(line string) string {
	for _, r := range line {
		if r != '\t' && unicode.IsControl(r) {
			return "a control character"
		}
	}
	switch low := strings.ToLower(line); {
	case !utf8.ValidString(line):
		return "bytes that are no text"
	case strings.HasPrefix(strings.TrimSpace(line), "::"):
		return "::"
	case strings.Contains(low, "##["), strings.Contains(low, "##vso["), strings.Contains(low, "##teamcity["):
		return "##"
	}
	return ""
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"::x", "\x1b[31m##[a", "a\rb", "#\x9b#[", "\x1b]0;a\x07::b", "\u2003::x", "###\x1b[[", "##vso\x1b[0m["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := logtext.Line(s)
		if why := speaks(got); why != "" {
			t.Errorf("Line(%q) = %q has %s", s, got, why)
		}
		if again := logtext.Line(got); again != got {
			t.Errorf("Line(%q) = %q, and of that %q", s, got, again)
		}
	})
}

func TestLinesAndOneLine(t *testing.T) {
	if got := logtext.Lines("a\n::b\n\x1b[1mc"); got != "a\n: :b\nc" {
		t.Errorf("Lines: %q", got)
	}
	for _, c := range []struct{ in, want string }{
		{"RUN a", "RUN a"},
		{"RUN a\nb", "RUN a …"},
		{"RUN a\n \n", "RUN a"},
		{strings.Repeat("é", 121), strings.Repeat("é", 120) + " …"},
	} {
		if got := logtext.OneLine(c.in); got != c.want {
			t.Errorf("OneLine(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		12 * time.Millisecond: "12ms", 3400 * time.Millisecond: "3.4s", 125 * time.Second: "2m05s", 62 * time.Minute: "1h02m",
	} {
		if got := logtext.Seconds(d); got != want {
			t.Errorf("Seconds(%d) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1.5 kB", 2_000_000: "2.0 MB", 3e12: "3.0 TB"} {
		if got := logtext.Size(n); got != want {
			t.Errorf("Size(%d) = %s, want %s", n, got, want)
		}
	}
}
