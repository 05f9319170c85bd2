/* A bounded first-in first-out queue for any number of producers and consumers. Wakes a consumer
 * only when one sleeps. */
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

namespace hsmgate
{

enum class Offer : unsigned char { accepted, full, closed };

template <typename Item> class BoundedQueue
{
public:
    explicit BoundedQueue(size_t limit) : limit_(limit) {}

    /* Moves from `item` only when it is accepted. */
    Offer offer(Item &item)
    {
        {
            const std::lock_guard lock(mutex_);
            if (closed_)
                return Offer::closed;
            if (items_.size() >= limit_)
                return Offer::full;
            items_.push_back(std::move(item));
            if (sleepers_ == 0)
                return Offer::accepted;
        }
        arrived_.notify_one();
        return Offer::accepted;
    }

    /* Waits for an item; false when the queue is closed and empty. */
    bool take(Item &item)
    {
        std::unique_lock lock(mutex_);
        while (items_.empty()) {
            if (closed_)
                return false;
            sleepers_++;
            arrived_.wait(lock);
            sleepers_--;
        }
        item = std::move(items_.front());
        items_.pop_front();
        return true;
    }

    /* Accepts nothing more; what is queued can still be taken. */
    void close()
    {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        arrived_.notify_all();
    }

    /* Closes and empties; the items go to `discarded`. */
    template <typename List> void closeAndDiscard(List &discarded)
    {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
            for (Item &item : items_)
                discarded.push_back(std::move(item));
            items_.clear();
        }
        arrived_.notify_all();
    }

    size_t size() const
    {
        const std::lock_guard lock(mutex_);
        return items_.size();
    }

private:
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<Item> items_;
    size_t limit_;
    size_t sleepers_ = 0;
    bool closed_ = false;
};

} // namespace hsmgate
