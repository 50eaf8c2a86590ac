package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// sqlite is a database file of SQLite (its fileformat2.html), as far as reading the
// rows of a table needs it.
type sqlite struct {
	b      []byte
	page   int64 // bytes
	usable int64 // of a page
	seen   map[uint32]bool
}

var errSQLite = errors.New("its pages are damaged")

// sqliteBlobs calls f with the second column of each row of a table, which is a blob.
// What is still in a write-ahead log is not seen.
func sqliteBlobs(b []byte, table string, f func([]byte) error) error {
	if len(b) < 100 {
		return errors.New("it is cut")
	}
	d := &sqlite{b: b, page: int64(binary.BigEndian.Uint16(b[16:])), seen: map[uint32]bool{}}
	if d.page == 1 {
		d.page = 65536
	}
	d.usable = d.page - int64(b[20])
	if d.page < 512 || d.page&(d.page-1) != 0 || d.usable < 480 {
		return fmt.Errorf("it has pages of %d bytes", d.page)
	}
	root := uint32(0)
	err := d.rows(1, 0, func(row []byte) error { // sqlite_schema: type, name, tbl_name, rootpage, sql
		c, err := columns(row, 4)
		if err != nil {
			return err
		}
		if string(c[0].b) == "table" && string(c[1].b) == table {
			root = uint32(c[3].n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root < 2 {
		return fmt.Errorf("it has no table %s", table)
	}
	return d.rows(root, 0, func(row []byte) error {
		c, err := columns(row, 2)
		if err != nil {
			return err
		}
		return f(c[1].b)
	})
}

// at is a page, and where its content begins in it. Each is visited once: pages that
// lead back would never end.
func (d *sqlite) at(n uint32) (page []byte, begin int64, err error) {
	off := (int64(n) - 1) * d.page
	if n == 0 || off+d.page > int64(len(d.b)) || d.seen[n] {
		return nil, 0, errSQLite
	}
	d.seen[n] = true
	if n == 1 {
		begin = 100
	}
	return d.b[off : off+d.usable], begin, nil
}

// rows calls f for the rows below a page of a table's tree.
func (d *sqlite) rows(n uint32, depth int, f func([]byte) error) error {
	p, begin, err := d.at(n)
	if err != nil {
		return err
	}
	if depth > 50 {
		return errSQLite
	}
	kind, cells := p[begin], int64(binary.BigEndian.Uint16(p[begin+3:]))
	head := int64(8)
	if kind == 5 {
		head = 12
	} else if kind != 13 {
		return errSQLite
	}
	if begin+head+2*cells > int64(len(p)) {
		return errSQLite
	}
	for i := range cells {
		at := int64(binary.BigEndian.Uint16(p[begin+head+2*i:]))
		if at+4 > int64(len(p)) {
			return errSQLite
		}
		if kind == 5 {
			err = d.rows(binary.BigEndian.Uint32(p[at:]), depth+1, f)
		} else {
			var row []byte
			if row, err = d.row(p[at:]); err == nil {
				err = f(row)
			}
		}
		if err != nil {
			return err
		}
	}
	if kind == 5 {
		return d.rows(binary.BigEndian.Uint32(p[begin+8:]), depth+1, f)
	}
	return nil
}

// row is what a cell of a leaf holds, with the pages that it flows over to.
func (d *sqlite) row(cell []byte) ([]byte, error) {
	size, k := sqliteInt(cell)
	if k == 0 {
		return nil, errSQLite
	}
	_, id := sqliteInt(cell[k:])
	if id == 0 || size > uint64(len(d.b)) {
		return nil, errSQLite
	}
	cell = cell[k+id:]
	local, whole := int64(size), int64(size)
	if most := d.usable - 35; whole > most {
		least := (d.usable-12)*32/255 - 23
		if local = least + (whole-least)%(d.usable-4); local > most {
			local = least
		}
	}
	if local > int64(len(cell)) || whole > local && local+4 > int64(len(cell)) {
		return nil, errSQLite
	}
	if local == whole {
		return cell[:local], nil
	}
	out := make([]byte, 0, whole)
	out = append(out, cell[:local]...)
	for next := binary.BigEndian.Uint32(cell[local:]); int64(len(out)) < whole; {
		p, begin, err := d.at(next)
		if err != nil || begin != 0 {
			return nil, errSQLite
		}
		out = append(out, p[4:4+min(whole-int64(len(out)), int64(len(p))-4)]...)
		next = binary.BigEndian.Uint32(p)
	}
	return out, nil
}

// column is a value of a row: a number, or bytes.
type column struct {
	n int64
	b []byte
}

// columns are the first values of a row.
func columns(row []byte, want int) ([]column, error) {
	size, k := sqliteInt(row)
	if k == 0 || size > uint64(len(row)) || size < uint64(k) {
		return nil, errSQLite
	}
	head, body := row[k:size], row[size:]
	var out []column
	for len(out) < want {
		kind, k := sqliteInt(head)
		if k == 0 {
			return nil, errSQLite
		}
		head = head[k:]
		n := uint64(0)
		switch {
		case kind >= 12:
			n = (kind - 12) / 2
		case kind <= 6:
			n = [...]uint64{0, 1, 2, 3, 4, 6, 8}[kind]
		case kind == 7:
			n = 8
		}
		if n > uint64(len(body)) {
			return nil, errSQLite
		}
		c := column{b: body[:n]}
		if kind == 9 {
			c.n = 1
		}
		if kind <= 6 {
			for _, x := range c.b {
				c.n = c.n<<8 | int64(x)
			}
		}
		body = body[n:]
		out = append(out, c)
	}
	return out, nil
}

// sqliteInt is a number of one to nine bytes, big end first; k is how many, 0 when b
// is cut.
func sqliteInt(b []byte) (v uint64, k int) {
	for i := 0; i < len(b) && i < 9; i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		if v = v<<7 | uint64(b[i]&0x7f); b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
