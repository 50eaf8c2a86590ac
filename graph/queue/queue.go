// Package queue decides who is next where many want a share of something limited:
// the memory of a machine, its CPUs.
//
//	Add(value, weight, priority, place) -> waits --Next--> has its share --Done--> given back
//
// The highest priority is next, of equal ones the lowest place, then who came first. Who does not fit
// waits, and those behind that do fit go before; but only Overtakes times, then
// all wait for it, so that the large ones get their turn. Who wants more than there
// is gets all of it.
//
// A Queue knows nothing of what it shares out, starts nothing and locks nothing.
package queue

import "slices"

// Overtakes is how often others go before somebody who does not fit.
const Overtakes = 8

// Queue holds who waits and counts what is given out. New makes it.
type Queue[T any] struct {
	capacity, used int64
	waiting        []*Ticket[T] // in order
}

// Ticket is somebody who waits, or has a share.
type Ticket[T any] struct {
	Value     T
	weight    int64
	priority  float64
	place     int
	overtaken int
}

// New makes a queue for so much; 0 or less is no limit.
func New[T any](capacity int64) *Queue[T] { return &Queue[T]{capacity: capacity} }

// Add lets v wait for a share. Weight 0, or less, always fits.
func (q *Queue[T]) Add(v T, weight int64, priority float64, place int) *Ticket[T] {
	t := &Ticket[T]{Value: v, weight: max(weight, 0), priority: priority, place: place}
	if q.capacity > 0 {
		t.weight = min(t.weight, q.capacity)
	}
	i, _ := slices.BinarySearchFunc(q.waiting, t, func(there, t *Ticket[T]) int {
		if there.priority > t.priority || there.priority == t.priority && there.place <= t.place {
			return -1 // equal ones stay before it
		}
		return 1
	})
	q.waiting = slices.Insert(q.waiting, i, t)
	return t
}

// Next takes the next one who fits out of those who wait, and gives it its share;
// nil if there is nobody.
func (q *Queue[T]) Next() *Ticket[T] {
	for i, t := range q.waiting {
		if q.fits(t) {
			for _, before := range q.waiting[:i] {
				before.overtaken++
			}
			q.used += t.weight
			q.waiting = slices.Delete(q.waiting, i, i+1)
			return t
		}
		if t.overtaken >= Overtakes {
			return nil
		}
	}
	return nil
}

// fits does not add: weights may be anything up to the largest number.
func (q *Queue[T]) fits(t *Ticket[T]) bool {
	return q.capacity <= 0 || t.weight == 0 || t.weight <= q.capacity-q.used
}

// Done gives the share of a ticket back that Next returned.
func (q *Queue[T]) Done(t *Ticket[T]) { q.used -= t.weight }

// Drop takes one who waits out of the queue; false if it does not wait.
func (q *Queue[T]) Drop(t *Ticket[T]) bool {
	i := slices.Index(q.waiting, t)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// Len is how many wait.
func (q *Queue[T]) Len() int { return len(q.waiting) }
